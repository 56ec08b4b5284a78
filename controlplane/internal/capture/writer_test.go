package capture

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/ambit-mesh/ambit/controlplane/compile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mesh sees pods as the API server has them.
type mesh struct {
	client *fake.Clientset

	mu        sync.Mutex
	known     map[types.UID]types.NamespacedName // guarded by mu
	wanted    bool                               // guarded by mu
	releasing bool                               // guarded by mu
	changed   chan struct{}
}

func (m *mesh) PodState(uid types.UID) (compile.PodState, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, ok := m.known[uid]
	if !ok {
		return compile.PodState{}, false
	}
	p, err := m.client.CoreV1().Pods(n.Namespace).Get(context.Background(), n.Name, metav1.GetOptions{})
	if err != nil || p.UID != uid {
		return compile.PodState{}, false
	}
	return compile.PodState{
		Name: n, UID: uid, Node: p.Spec.NodeName, ResourceVersion: p.ResourceVersion, Wanted: m.wanted, Releasing: m.releasing, Epoch: 1,
		Condition: compile.CapturedCondition(p),
	}, true
}

func (m *mesh) CapturedOn(node string) []compile.PodState {
	var out []compile.PodState
	for _, uid := range []types.UID{"a", "b"} {
		if s, ok := m.PodState(uid); ok && s.Node == node && s.Condition.Status == corev1.ConditionTrue {
			out = append(out, s)
		}
	}
	return out
}

func (m *mesh) Await(ctx context.Context, holds func() bool) error {
	for !holds() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-m.changed:
		}
	}
	return nil
}

func (m *mesh) learn(uid types.UID, name string) {
	m.mu.Lock()
	m.known[uid] = types.NamespacedName{Namespace: "shop", Name: name}
	m.mu.Unlock()
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

func newWriter(t *testing.T) (*Writer, *mesh) {
	t.Helper()
	pod := func(name, node string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name)}, Spec: corev1.PodSpec{NodeName: node}}
	}
	m := &mesh{client: fake.NewClientset(pod("a", "n1"), pod("b", "n2")), known: make(map[types.UID]types.NamespacedName), wanted: true, changed: make(chan struct{}, 1)}
	m.learn("a", "a")
	m.learn("b", "b")
	w, err := New(m.client.CoreV1(), m, m, zaptest.NewLogger(t), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return w, m
}

func (m *mesh) says(t *testing.T, uid types.UID, want string) {
	t.Helper()
	s, ok := m.PodState(uid)
	if got := string(s.Condition.Status) + "/" + s.Condition.Reason; !ok || got != want {
		t.Errorf("pod %s says %q, want %q", uid, got, want)
	}
}

func report(t *testing.T, w *Writer, node string, snapshot bool, pods ...compile.PodCapture) {
	t.Helper()
	if err := w.Report(t.Context(), compile.CaptureReport{Node: node, Snapshot: snapshot, Pods: pods}); err != nil {
		t.Fatal(err)
	}
}

// TestReports: what agents say gets into the pods of their own node, once; what a
// snapshot leaves out is lost.
func TestReports(t *testing.T) {
	w, m := newWriter(t)
	report(t, w, "n1", true, compile.PodCapture{UID: "a", Captured: true}, compile.PodCapture{UID: "b", Captured: true})
	m.says(t, "a", "True/Captured")
	m.says(t, "b", "/") // on another node: none of that agent's business
	m.client.ClearActions()
	report(t, w, "n1", true, compile.PodCapture{UID: "a", Captured: true})
	for _, a := range m.client.Actions() {
		if a.GetVerb() == "patch" {
			t.Error("what is so is written again")
		}
	}
	report(t, w, "n1", true)
	m.says(t, "a", "True/CaptureLost")
}

// TestConflict: another one's write comes first; this one is made on what is there
// then, and gives up when it never gets through.
func TestConflict(t *testing.T) {
	w, m := newWriter(t)
	left := 3
	m.client.PrependReactor("patch", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		left--
		return left >= 0, nil, apierrors.NewConflict(schema.GroupResource{Resource: "pods"}, "a", errors.New("another version"))
	})
	report(t, w, "n1", false, compile.PodCapture{UID: "a", Captured: true})
	m.says(t, "a", "True/Captured")
	left = 1000
	if err := w.Report(t.Context(), compile.CaptureReport{Node: "n1", Pods: []compile.PodCapture{{UID: "a"}}}); !apierrors.IsConflict(err) {
		t.Errorf("got %v", err)
	}
}

// TestRelease: the agent is told to let go only once peers know, and then says so.
func TestRelease(t *testing.T) {
	w, m := newWriter(t)
	report(t, w, "n1", false, compile.PodCapture{UID: "a", Captured: true})
	m.mu.Lock()
	m.wanted, m.releasing = false, true
	m.mu.Unlock()
	w.Release(t.Context(), []compile.Release{{UID: "a", Epoch: 7}}) // of a time before
	m.says(t, "a", "True/Captured")
	w.Release(t.Context(), []compile.Release{{UID: "a", Epoch: 1}, {UID: "gone"}})
	m.says(t, "a", "True/Releasing")
	report(t, w, "n1", false, compile.PodCapture{UID: "a"})
	m.says(t, "a", "False/Released")
}

// TestEarly: an agent may know a pod before the mesh does.
func TestEarly(t *testing.T) {
	w, m := newWriter(t)
	m.mu.Lock()
	delete(m.known, "a")
	m.mu.Unlock()
	written := make(chan struct{}, 8)
	m.client.PrependReactor("patch", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		written <- struct{}{}
		return false, nil, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	report(t, w, "n1", false, compile.PodCapture{UID: "a", Captured: true})
	m.learn("a", "a")
	<-written
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
