package controlplane

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/internal/testkit"
	"github.com/ambit-mesh/ambit/internal/xdsclient"
)

// patience is how long an edit may take before something must be wrong.
const patience = 30 * time.Second

// fleet are the clients of a control plane.
type fleet struct {
	t    *testing.T
	want int // addresses that each ztunnel is to have

	mu     sync.Mutex
	counts []int         // guarded by mu; addresses that each client was sent at first
	behind int           // guarded by mu; clients that have fewer than want
	full   chan struct{} // closed when there are none
	match  func(typeURL, name string) bool
	wait   map[int]struct{} // guarded by mu, as match; clients that have not seen what is awaited
	seen   chan struct{}    // guarded by mu; closed when all have
}

// connect connects a ztunnel of each node, and a waypoint, which is the last, and
// says when it began to.
func connect(t *testing.T, w *world, p *process) (*fleet, time.Time, func()) {
	t.Helper()
	f := &fleet{t: t, want: p.resources(compile.TypeAddress), counts: make([]int, w.nodes), behind: w.nodes, full: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	dir := t.TempDir()
	roots := filepath.Join(dir, "roots.pem")
	testkit.Until(t, "roots", func() bool {
		cm, err := w.client.CoreV1().ConfigMaps(system).Get(t.Context(), "ambit-root-cert", metav1.GetOptions{})
		return err == nil && os.WriteFile(roots, []byte(cm.Data["root-cert.pem"]), 0o600) == nil
	})
	var clients []*xdsclient.Client
	var conns []func() error
	for i := range w.nodes + 1 {
		namespace, account, pod, types := system, "ambit-ztunnel", fmt.Sprintf("ztunnel-node-%d", i), []string{compile.TypeAuthorization, compile.TypeAddress}
		if i == w.nodes {
			namespace, account, pod, types = "ns-0", "wp", waypointPod, []string{compile.TypeBackend, compile.TypeFrontend}
		}
		token := filepath.Join(dir, pod)
		if err := os.WriteFile(token, []byte(w.token(namespace, account, pod)), 0o600); err != nil {
			t.Fatal(err)
		}
		cc, err := xdsclient.Connect(xdsclient.Target{Address: p.xds, ServerName: "ambit-controlplane.ambit-system.svc", RootFile: roots, TokenFile: token, ClusterID: "Kubernetes"})
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, cc.Close)
		var subs []xdsclient.Subscription
		for _, typeURL := range types {
			subs = append(subs, xdsclient.Subscription{TypeURL: typeURL, Handle: func(u xdsclient.Update) error {
				f.update(i, typeURL, u)
				return nil
			}})
		}
		c, err := xdsclient.New(cc, xdsclient.Config{Node: &corev3.Node{Id: "bench~" + pod}}, subs...)
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	begin := time.Now()
	for _, c := range clients {
		running.Go(func() { _ = c.Run(ctx) })
	}
	stop := sync.OnceFunc(func() {
		cancel()
		running.Wait()
		for _, end := range conns {
			if err := end(); err != nil {
				t.Error(err)
			}
		}
	})
	t.Cleanup(stop)
	return f, begin, stop
}

// token is what the kubelet would mount into a pod.
func (w *world) token(namespace, account, pod string) string {
	w.t.Helper()
	p, err := w.client.CoreV1().Pods(namespace).Get(w.t.Context(), pod, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := w.client.CoreV1().ServiceAccounts(namespace).CreateToken(w.t.Context(), account, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences: []string{"ambit-mesh.io"}, BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod, UID: p.UID},
	}}, metav1.CreateOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return out.Status.Token
}

// update takes what one client was sent.
func (f *fleet) update(client int, typeURL string, u xdsclient.Update) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if typeURL == compile.TypeAddress && client < len(f.counts) && f.counts[client] < f.want {
		if f.counts[client] += len(u.Resources); f.counts[client] >= f.want {
			if f.behind--; f.behind == 0 {
				close(f.full)
			}
		}
	}
	if _, awaited := f.wait[client]; !awaited {
		return
	}
	for _, r := range u.Resources {
		if f.match(typeURL, r.GetName()) {
			delete(f.wait, client)
			if len(f.wait) == 0 {
				close(f.seen)
			}
			return
		}
	}
}

// expect prepares for a resource whose name has a text in it. What it gives is
// closed when all ztunnels, or the waypoint, were sent it.
func (f *fleet) expect(text string, waypoint bool, types ...string) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wait, f.seen = make(map[int]struct{}), make(chan struct{})
	for i := range f.counts {
		if !waypoint {
			f.wait[i] = struct{}{}
		}
	}
	if waypoint {
		f.wait[len(f.counts)] = struct{}{}
	}
	f.match = func(typeURL, name string) bool {
		for _, t := range types {
			if t == typeURL && strings.Contains(name+"/", text) {
				return true
			}
		}
		return false
	}
	return f.seen
}

// await waits for what a channel tells.
func await(ctx context.Context, what string, c <-chan struct{}) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return fmt.Errorf("%s: not within %v", what, patience)
	}
}
