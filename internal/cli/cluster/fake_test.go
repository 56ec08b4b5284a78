package cluster

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/httpstream"      //nolint:staticcheck // client-go speaks in its types
	"k8s.io/apimachinery/pkg/util/httpstream/spdy" //nolint:staticcheck // likewise
	"k8s.io/client-go/tools/portforward"
)

// fakeCluster answers for an API server that has pods and forwards their ports, as
// the real one and its kubelets do.
type fakeCluster struct {
	t          *testing.T
	kubeconfig string

	mu        sync.Mutex
	pods      map[string]*corev1.Pod // by namespace/name
	ports     map[string]string      // address behind the admin port of a pod
	log       []podEvent
	changed   chan struct{}   // closed at the next change
	forbidden map[string]bool // paths
	gateways  []any
	conns     map[string][]httpstream.Connection // by pod
	forwarded []string                           // pods whose port was asked for
	open      sync.WaitGroup
}

// podEvent has the version that is its place in the log, from 1 on.
type podEvent struct {
	kind string
	pod  *corev1.Pod
}

func newFakeCluster(t *testing.T) *fakeCluster {
	f := &fakeCluster{t: t, pods: map[string]*corev1.Pod{}, ports: map[string]string{}, changed: make(chan struct{}), forbidden: map[string]bool{}, conns: map[string][]httpstream.Connection{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, map[string]string{"gitVersion": "v1.36.1"})
	})
	mux.HandleFunc("GET /api/v1/pods", func(w http.ResponseWriter, r *http.Request) { f.list(w, r, "") })
	mux.HandleFunc("GET /api/v1/namespaces/{ns}/pods", func(w http.ResponseWriter, r *http.Request) { f.list(w, r, r.PathValue("ns")) })
	mux.HandleFunc("POST /api/v1/namespaces/{ns}/pods/{name}/portforward", f.forward)
	mux.HandleFunc("GET /apis/gateway.networking.k8s.io/v1/gateways", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, map[string]any{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayList", "metadata": map[string]any{}, "items": f.gateways})
	})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		no := f.forbidden[r.URL.Path]
		f.mu.Unlock()
		if no {
			answer(w, http.StatusForbidden, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: 403, Reason: metav1.StatusReasonForbidden, Message: "forbidden: " + r.URL.Path})
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		f.open.Wait() // what the command opened, it has closed
		srv.CloseClientConnections()
		srv.Close()
	})
	f.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: %q}}]\nusers: [{name: u, user: {}}]\n"+
		"contexts: [{name: c, context: {cluster: c, user: u, namespace: shop}}]\ncurrent-context: c\n", srv.URL)
	if err := os.WriteFile(f.kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

// run adds a pod that runs, or that has become another phase.
func (f *fakeCluster) run(namespace, name, node string, phase corev1.PodPhase, l map[string]string, address string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key, kind := namespace+"/"+name, "MODIFIED"
	if f.pods[key] == nil {
		kind = "ADDED"
	}
	p := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(key), Labels: l},
		Spec:       corev1.PodSpec{NodeName: node}, Status: corev1.PodStatus{Phase: phase},
	}
	f.pods[key], f.ports[key] = p, address
	f.happened(kind, p)
}

func (f *fakeCluster) ztunnel(node, address string) {
	f.run("ambit-system", "ambit-ztunnel-"+node, node, corev1.PodRunning, map[string]string{"app.kubernetes.io/name": "ambit-ztunnel"}, address)
}

func (f *fakeCluster) waypoint(namespace, gateway, node, address string) {
	f.run(namespace, gateway+"-1", node, corev1.PodRunning, map[string]string{"gateway.networking.k8s.io/gateway-name": gateway, "ambit-mesh.io/dataplane-mode": "none"}, address)
}

func (f *fakeCluster) remove(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pods[key]
	delete(f.pods, key)
	f.happened("DELETED", p)
}

// happened is called with the lock held.
func (f *fakeCluster) happened(kind string, p *corev1.Pod) {
	p = p.DeepCopy()
	p.ResourceVersion = strconv.Itoa(len(f.log) + 1)
	f.log = append(f.log, podEvent{kind, p})
	close(f.changed)
	f.changed = make(chan struct{})
}

// cut breaks the connections to a pod.
func (f *fakeCluster) cut(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns[key] {
		c.Close()
	}
	f.conns[key] = nil
}

func (f *fakeCluster) list(w http.ResponseWriter, r *http.Request, namespace string) {
	selector, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	wanted := func(p *corev1.Pod) bool {
		return (namespace == "" || p.Namespace == namespace) && selector.Matches(labels.Set(p.Labels))
	}
	if r.URL.Query().Get("watch") != "" {
		f.watch(w, r, wanted)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out := corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(len(f.log))}}
	for _, p := range f.pods {
		if wanted(p) {
			out.Items = append(out.Items, *p)
		}
	}
	answer(w, 200, out)
}

func (f *fakeCluster) watch(w http.ResponseWriter, r *http.Request, wanted func(*corev1.Pod) bool) {
	n, err := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(200)
	for {
		f.mu.Lock()
		news, changed := slices.Clone(f.log[n:]), f.changed
		f.mu.Unlock()
		n += len(news)
		for _, e := range news {
			if wanted(e.pod) {
				_ = json.NewEncoder(w).Encode(map[string]any{"type": e.kind, "object": e.pod})
			}
		}
		w.(http.Flusher).Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

// forward does what a kubelet does with the streams of a port.
func (f *fakeCluster) forward(w http.ResponseWriter, r *http.Request) {
	key := r.PathValue("ns") + "/" + r.PathValue("name")
	f.mu.Lock()
	f.forwarded = append(f.forwarded, key)
	address := f.ports[key]
	f.mu.Unlock()
	if _, err := httpstream.Handshake(r, w, []string{portforward.PortForwardProtocolV1Name}); err != nil {
		f.t.Error(err)
		return
	}
	streams := make(chan httpstream.Stream, 2)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
		streams <- s
		return nil
	})
	if conn == nil {
		f.t.Error("not upgraded")
		return
	}
	f.mu.Lock()
	f.conns[key] = append(f.conns[key], conn)
	f.mu.Unlock()
	f.open.Add(1)
	defer f.open.Done()
	defer conn.Close()
	var data, problems httpstream.Stream
	for range 2 {
		select {
		case s := <-streams:
			if s.Headers().Get(corev1.PortHeader) != "15000" {
				f.t.Errorf("asked for port %q", s.Headers().Get(corev1.PortHeader))
			}
			if s.Headers().Get(corev1.StreamType) == corev1.StreamTypeError {
				problems = s
			} else {
				data = s
			}
		case <-conn.CloseChan():
			return
		}
	}
	var d net.Dialer
	to, err := d.DialContext(r.Context(), "tcp4", address)
	if err != nil {
		fmt.Fprintf(problems, `error forwarding port 15000 to pod 0af1, uid : failed to execute portforward in network namespace "/var/run/netns/x": failed to connect to localhost:15000 inside namespace "0af1", IPv4: %v IPv6 dial tcp6: address localhost: no suitable address found `, err)
		problems.Close()
		data.Close()
		<-conn.CloseChan()
		return
	}
	defer to.Close()
	done := make(chan struct{}, 2)
	go func() { _, _ = io.Copy(to, data); done <- struct{}{} }()
	go func() { _, _ = io.Copy(data, to); data.Close(); problems.Close(); done <- struct{}{} }()
	select {
	case <-done:
	case <-conn.CloseChan():
	}
	to.Close()
	conn.Close()
	<-done
}

// asked gives the pods whose port was asked for, without repetitions.
func (f *fakeCluster) asked() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := slices.Clone(f.forwarded)
	slices.Sort(all)
	return strings.Join(slices.Compact(all), " ")
}
