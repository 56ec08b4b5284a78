package local_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/internal/local"
)

// The test binary is everything that runs: the keeper, pid 1 and the helpers of
// sandboxes, the programs of pods, and stand-ins for the mesh's processes.
func TestMain(m *testing.M) {
	if code, inside := local.Inside(); inside {
		os.Exit(code)
	}
	if role, ok := roles()[roleName()]; ok {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		err := role(ctx)
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// roleName is the second word of the command line, or the name of the program.
func roleName() string {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "role-") {
		return os.Args[1]
	}
	return filepath.Base(os.Args[0])
}

func roles() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"role-server": serve, "role-stubborn": stubborn, "role-get": get, "role-udp": askUDP, "role-hammer": hammer, "role-flows": tellOnlyFlows,
		"ambit-local-controlplane": fakeControlPlane, "ambit-nodeagent": fakeNodeAgent, "ambit-ztunnel": fakeZtunnel, "ambit-waypoint": fakeWaypoint,
	}
}

// serve answers over HTTP and UDP on port 8080 with its name and the client's
// address.
func serve(ctx context.Context) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	pc, err := net.ListenPacket("udp", ":8080")
	if err != nil {
		return err
	}
	defer pc.Close()
	go func() {
		for buf := make([]byte, 100); ; {
			_, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo([]byte(host), from)
		}
	}()
	handler := func(w http.ResponseWriter, r *http.Request) {
		from, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "%s %s %s", host, from, os.Getenv("VERSION"))
	}
	return listenAndServe(ctx, ":8080", http.HandlerFunc(handler), 200*time.Millisecond)
}

// listenAndServe serves until ctx ends and a little longer, as programs should
// that are still being sent requests.
func listenAndServe(ctx context.Context, addr string, h http.Handler, linger time.Duration) error {
	srv := &http.Server{Addr: addr, Handler: h, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		<-time.After(linger)
		_ = srv.Shutdown(context.Background())
	}()
	if err := srv.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// stubborn ends only by SIGKILL, and so does its child.
func stubborn(context.Context) error {
	if len(os.Args) < 3 {
		attr := &os.ProcAttr{Sys: &syscall.SysProcAttr{Setsid: true}}
		if _, err := os.StartProcess("/proc/self/exe", []string{os.Args[0], "role-stubborn", "child"}, attr); err != nil {
			return err
		}
	}
	select {}
}

func get(ctx context.Context) error {
	body, err := fetch(ctx, os.Args[2])
	fmt.Print(body)
	return err
}

func fetch(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func askUDP(context.Context) error {
	conn, err := net.Dial("udp", os.Args[2])
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("?")); err != nil {
		return err
	}
	buf := make([]byte, 100)
	n, err := conn.Read(buf)
	fmt.Print(string(buf[:n]))
	return err
}

// hammer fetches without pause until it is told to stop, and prints how many
// fetches there were and which failed.
func hammer(ctx context.Context) error {
	count := 0
	var failures []string
	for ctx.Err() == nil {
		if _, err := fetch(context.WithoutCancel(ctx), os.Args[2]); err != nil {
			failures = append(failures, err.Error())
		}
		count++
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"count": count, "failures": failures})
}

// flagValue reads --name=value from the command line.
func flagValue(name string) string {
	for _, a := range os.Args {
		if v, ok := strings.CutPrefix(a, "--"+name+"="); ok {
			return v
		}
	}
	return ""
}

func ready(ctx context.Context, port string) error {
	return listenAndServe(ctx, ":"+port, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ready") }), 0)
}

func fakeControlPlane(ctx context.Context) error {
	fmt.Println("control plane of", flagValue("cluster-domain"))
	if err := os.WriteFile(filepath.Join(flagValue("state-dir"), "root-cert.pem"), []byte("root"), 0o600); err != nil {
		return err
	}
	return ready(ctx, "15021")
}

// fakeZtunnel knows no pod when it is asked for the first time, and those of the
// overlay from then on.
func fakeZtunnel(ctx context.Context) error {
	root := flagValue("xds-root")
	if _, err := os.Stat(root); err != nil {
		return err
	}
	asked := false
	go func() {
		_ = tellFlows(ctx, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			known := []any{}
			if asked {
				known = overlayPods(filepath.Join(filepath.Dir(filepath.Dir(root)), "overlay"))
			}
			asked = true
			_ = json.NewEncoder(w).Encode(map[string]any{"workloads": known})
		}))
	}()
	return ready(ctx, "15021")
}

// overlayPods gives the pods as a ztunnel dumps them.
func overlayPods(dir string) []any {
	pods := []any{}
	files, _ := filepath.Glob(filepath.Join(dir, "pod_*.json"))
	for _, file := range files {
		var p corev1.Pod
		if b, err := os.ReadFile(file); err != nil || json.Unmarshal(b, &p) != nil {
			continue // replaced just now
		}
		pods = append(pods, map[string]any{"namespace": p.Namespace, "name": p.Name, "workloadIps": []string{p.Status.PodIP}, "status": "Healthy"})
	}
	return pods
}

// fakeNodeAgent refuses each pod once, and notes what it was told.
func fakeNodeAgent(ctx context.Context) error {
	socket := flagValue("cni-socket")
	_ = os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	asked := make(map[string]bool)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cmdadd", func(w http.ResponseWriter, r *http.Request) {
		var pod struct {
			Netns, PodName, PodNamespace, PodUID string
			IPs                                  []string
		}
		if err := json.NewDecoder(r.Body).Decode(&pod); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if _, err := os.Stat(pod.Netns); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if !asked[pod.PodUID] {
			asked[pod.PodUID] = true
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `{"error": "ask again"}`)
			return
		}
		fmt.Println("ADD", pod.PodNamespace, pod.PodName, pod.Netns, pod.IPs)
	})
	mux.HandleFunc("POST /cmddel", func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Printf("DEL %s\n", body)
	})
	go func() { _ = http.Serve(l, mux) }()
	return ready(ctx, "15022")
}
