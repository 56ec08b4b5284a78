// Package apitest gives a test an API server of its own: etcd and kube-apiserver, without nodes and controllers, on
// loopback. It is the real one: validation, admission, server-side apply, TokenReview and watches are as in a cluster;
// garbage collection, ServiceAccount and EndpointSlice controllers are not there, so that a test makes such objects
// itself.
//
// The programs come from `make cluster-build`. Where they are not built a test is skipped, unless AMBIT_KUBE is
// "require"; AMBIT_KUBE may also be a folder that has them.
package apitest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ambit-mesh/ambit/tests/cluster/internal/binaries"
	"github.com/ambit-mesh/ambit/tests/cluster/internal/pki"
)

// Server is a running API server. It ends with the test.
type Server struct {
	// Config is the administrator's.
	Config *rest.Config
	// Kubeconfig is a file with the same.
	Kubeconfig string

	t         testing.TB
	bin       string
	keys      *pki.ControlPlane
	dir       string
	apiserver *process
	command   []string
}

// startTimeout is far above the four seconds that a start takes on a quiet machine.
const startTimeout = 3 * time.Minute

// Start starts etcd and kube-apiserver and waits until it is ready. Flags are added to kube-apiserver's.
func Start(t testing.TB, flags ...string) *Server {
	t.Helper()
	s := &Server{t: t, bin: find(t), dir: t.TempDir()}
	etcd, peer, port := address(t), address(t), address(t)
	run(t, s.log("etcd"), filepath.Join(s.bin, "etcd"), "--data-dir", filepath.Join(s.dir, "etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls=http://"+etcd, "--advertise-client-urls=http://"+etcd,
		"--listen-peer-urls=http://"+peer, "--initial-advertise-peer-urls=http://"+peer, "--initial-cluster=default=http://"+peer)
	var err error
	if s.keys, err = pki.New(s.dir, "https://"+port, "127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "10.0.0.1"); err != nil {
		t.Fatal(err)
	}
	s.Kubeconfig = filepath.Join(s.dir, "admin.kubeconfig")
	if s.Config, err = clientcmd.BuildConfigFromFlags("", s.Kubeconfig); err != nil {
		t.Fatal(err)
	}
	_, number, _ := strings.Cut(port, ":")
	s.command = append(append([]string{
		filepath.Join(s.bin, "kube-apiserver"), "--etcd-servers=http://" + etcd, "--bind-address=127.0.0.1", "--secure-port=" + number,
		// What is advertised may not be loopback. Nobody connects to it.
		"--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.0.0.0/16", "--disable-admission-plugins=ServiceAccount",
	}, s.keys.APIServerFlags()...), flags...)
	s.Resume()
	return s
}

// Pause kills the API server. Its data stay, and so does its address.
func (s *Server) Pause() {
	s.t.Helper()
	s.apiserver.kill()
}

// Resume starts the API server again after Pause, and waits until it is ready.
func (s *Server) Resume() {
	s.t.Helper()
	s.apiserver = run(s.t, s.log("kube-apiserver"), s.command[0], s.command[1:]...)
	s.ready()
}

// As writes a kubeconfig for a user in a group, and gives its configuration.
func (s *Server) As(user, group string) (*rest.Config, string) {
	s.t.Helper()
	name := strings.NewReplacer(":", "-", "/", "-").Replace(user)
	if err := s.keys.Kubeconfig(name, pki.Subject{Name: user, Group: group}); err != nil {
		s.t.Fatal(err)
	}
	file := filepath.Join(s.dir, name+".kubeconfig")
	cfg, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		s.t.Fatal(err)
	}
	return cfg, file
}

// Kubectl runs kubectl as the administrator and gives what it printed.
func (s *Server) Kubectl(stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(s.t.Context(), filepath.Join(s.bin, "kubectl"), append([]string{"--kubeconfig", s.Kubeconfig}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

func (s *Server) ready() {
	s.t.Helper()
	client, err := rest.HTTPClientFor(s.Config)
	if err != nil {
		s.t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	deadline := time.NewTimer(startTimeout)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok(s.t.Context(), client, s.Config.Host+"/readyz") {
			return
		}
		select {
		case <-deadline.C:
			s.t.Fatalf("kube-apiserver is not ready within %v:\n%s", startTimeout, tail(s.log("kube-apiserver")))
		case <-s.apiserver.done:
			s.t.Fatalf("kube-apiserver ended:\n%s", tail(s.log("kube-apiserver")))
		case <-tick.C:
		}
	}
}

func ok(ctx context.Context, c *http.Client, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := c.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK
}

func (s *Server) log(name string) string { return filepath.Join(s.dir, name+".log") }

// find gives the folder with the programs, or skips the test.
func find(t testing.TB) string {
	t.Helper()
	given := os.Getenv("AMBIT_KUBE")
	if given != "" && given != "require" {
		return given
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	root, err := binaries.Root(wd)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := binaries.Find(root)
	switch {
	case errors.Is(err, binaries.ErrNotBuilt) && given == "":
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	return dir
}

// address is one on loopback that was free a moment ago.
func address(t testing.TB) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// process is a program that ends with the test.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

func run(t testing.TB, log, name string, args ...string) *process {
	t.Helper()
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(name, args...) //nolint:noctx // it is ended by kill, in order
	cmd.Stdout, cmd.Stderr = out, out
	// It must not outlive a test that crashes or is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait()
	}()
	t.Cleanup(p.kill)
	return p
}

// kill ends the process and waits for it. It may be called twice.
func (p *process) kill() {
	select {
	case <-p.done:
		return
	default:
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

// tail is the end of a log.
func tail(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4000):])
}
