package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/ambit-mesh/ambit/internal/xdsclient"
)

const (
	typeAddress  = "type.googleapis.com/istio.workload.Address"
	benchToken   = "bench"
	meshClients  = 10
	meshEdits    = 200
	meshXDS      = "127.0.0.1:25012"
	meshReady    = "127.0.0.1:25021"
	stateServers = "127.0.0.1:25112"
)

// mesh measures what does and does not depend on the size of the mesh.
func (b *bench) mesh(ctx context.Context) error {
	fmt.Printf("\nmanifest edit of one pod to the last of %d clients' acknowledgement (to reach: p99 < 100 ms at 10,000 workloads)\n", meshClients)
	for _, size := range []int{1000, 10000} {
		if err := b.editToAck(ctx, size); err != nil {
			return err
		}
	}
	return b.stateMemory(ctx)
}

// sibling is another program of the build.
func (b *bench) sibling(name string) string { return filepath.Join(filepath.Dir(b.cli), name) }

// start runs a program of the mesh until stop is called.
func start(ctx context.Context, log, program string, args ...string) (pid int, stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	out, err := os.Create(log)
	if err != nil {
		cancel()
		return 0, nil, err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		cancel()
		return 0, nil, err
	}
	return cmd.Process.Pid, func() {
		cancel()
		_ = cmd.Wait() // it was told to end
		_ = out.Close()
	}, nil
}

func (b *bench) editToAck(ctx context.Context, size int) error {
	dir := filepath.Join(b.dir, fmt.Sprintf("mesh-%d", size))
	if err := writeMesh(filepath.Join(dir, "manifests"), size); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(benchToken))
	creds := fmt.Sprintf("nodes: [{node: n1, tokenSHA256: %s}]\n", hex.EncodeToString(sum[:]))
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "nodes.yaml"), []byte(creds), 0o600), os.WriteFile(filepath.Join(dir, "token"), []byte(benchToken), 0o600)); err != nil {
		return err
	}
	began := time.Now()
	pid, stop, err := start(ctx, filepath.Join(dir, "log"), b.sibling("ambit-local-controlplane"),
		"--manifests", filepath.Join(dir, "manifests"), "--state-dir", filepath.Join(dir, "state"), "--xds-address", meshXDS,
		"--admin-address", "127.0.0.1:25000", "--metrics-address", "127.0.0.1:25014", "--ready-address", meshReady,
		"--node-credentials", filepath.Join(dir, "nodes.yaml"))
	if err != nil {
		return err
	}
	defer stop()
	if err := awaitReady(ctx, "http://"+meshReady+"/healthz/ready"); err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		return fmt.Errorf("control plane: %w\n%s", err, log[max(0, len(log)-2000):])
	}
	ready := time.Since(began)
	w, end, err := watchers(ctx, dir)
	if err != nil {
		return err
	}
	defer end()
	var times []time.Duration
	for i := range meshEdits {
		revision := fmt.Sprintf("edit-%d", i)
		at := time.Now()
		if err := writeEdited(filepath.Join(dir, "manifests"), revision); err != nil {
			return err
		}
		if err := w.await(ctx, revision); err != nil {
			return err
		}
		times = append(times, time.Since(at))
	}
	slices.Sort(times)
	fmt.Printf("  %6d workloads: p50 %s, p99 %s; control plane ready after %s, %d MB resident\n", size,
		times[len(times)/2].Round(time.Millisecond/10), times[len(times)*99/100].Round(time.Millisecond/10), ready.Round(time.Millisecond), residentKB(fmt.Sprintf("/proc/%d", pid))>>10)
	return nil
}

func awaitReady(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// watched tells when every client has seen a revision.
type watched struct {
	mu   sync.Mutex
	seen map[string]int
	news chan struct{}
}

func (w *watched) saw(revision string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen[revision]++; w.seen[revision] == meshClients {
		w.news <- struct{}{}
	}
}

func (w *watched) await(ctx context.Context, revision string) error {
	select {
	case <-w.news:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(20 * time.Second):
		return fmt.Errorf("%s did not arrive", revision)
	}
}

// watchers connects the clients and waits until all of them know the mesh.
func watchers(ctx context.Context, dir string) (*watched, func(), error) {
	w := &watched{seen: make(map[string]int), news: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	end := func() {
		cancel()
		wg.Wait()
	}
	for i := range meshClients {
		cc, err := xdsclient.Connect(xdsclient.Target{
			Address: meshXDS, ServerName: "ambit-controlplane.ambit-system.svc",
			RootFile: filepath.Join(dir, "state", "root-cert.pem"), TokenFile: filepath.Join(dir, "token"), ClusterID: "Kubernetes",
		})
		if err != nil {
			return nil, end, err
		}
		c, err := xdsclient.New(cc, xdsclient.Config{Node: &corev3.Node{Id: fmt.Sprintf("ztunnel~127.0.0.1~bench-%d.ambit-system~ambit-system.svc.cluster.local", i)}},
			xdsclient.Subscription{TypeURL: typeAddress, Handle: func(u xdsclient.Update) error {
				for _, r := range u.Resources {
					if strings.HasSuffix(r.GetName(), "/edited") {
						w.saw(revisionOf(r.GetResource().GetValue()))
					}
				}
				return nil
			}})
		if err != nil {
			return nil, end, err
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer cc.Close()
			_ = c.Run(ctx)
		}()
		select {
		case <-c.Synced(typeAddress):
		case <-time.After(30 * time.Second):
			return nil, end, errors.New("a client got no workloads")
		}
	}
	select { // the revision that they began with
	case <-w.news:
	default:
	}
	return w, end, nil
}

// revisionOf finds the revision in an encoded workload: it stands there as text.
func revisionOf(b []byte) string {
	i := strings.Index(string(b), "edit-")
	if i < 0 {
		return ""
	}
	end := i + len("edit-")
	for end < len(b) && b[end] >= '0' && b[end] <= '9' {
		end++
	}
	return string(b[i:end])
}

// writeMesh writes manifests of so many pods, ten for each service.
func writeMesh(dir string, pods int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "namespace.yaml"), []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: big, labels: {ambit-mesh.io/dataplane-mode: ambient}}\n"), 0o644); err != nil {
		return err
	}
	for at := 0; at < pods; at += 500 {
		var f strings.Builder
		for i := at; i < min(pods, at+500); i++ {
			if i%10 == 0 {
				fmt.Fprintf(&f, "apiVersion: v1\nkind: Service\nmetadata: {name: svc-%d, namespace: big}\nspec: {clusterIP: 10.%d.%d.%d, selector: {app: svc-%d}, ports: [{port: 80, targetPort: 8080}]}\n---\n", i/10, 96+i>>16, i>>8&255, i&255, i/10)
			}
			f.WriteString(podManifest(fmt.Sprintf("pod-%d", i), i, fmt.Sprintf("svc-%d", i/10), "v1"))
			f.WriteString("---\n")
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("pods-%06d.yaml", at)), []byte(f.String()), 0o644); err != nil {
			return err
		}
	}
	return writeEdited(dir, "edit-")
}

func writeEdited(dir, revision string) error {
	tmp := filepath.Join(dir, ".edited.yaml")
	return errors.Join(os.WriteFile(tmp, []byte(podManifest("edited", 1<<20, "svc-0", revision)), 0o644), os.Rename(tmp, filepath.Join(dir, "edited.yaml")))
}

func podManifest(name string, i int, app, version string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: big, uid: uid-%s, labels: {app: %s, version: %q}}
spec: {nodeName: n%d, serviceAccountName: %s, containers: [{name: c, image: none, ports: [{containerPort: 8080}]}]}
status: {phase: Running, podIP: 10.%d.%d.%d, podIPs: [{ip: 10.%d.%d.%d}], conditions: [{type: Ready, status: "True"}]}
`, name, name, app, version, i%50, app, 128+i>>16, i>>8&255, i&255, 128+i>>16, i>>8&255, i&255)
}
