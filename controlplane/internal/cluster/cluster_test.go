package cluster

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/ambit-mesh/ambit/controlplane/internal/ca"
	"github.com/ambit-mesh/ambit/internal/lifecycle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const namespace = "ambit-system"

// TestSecret: of two replicas that make an authority one is told that there is one,
// and what cannot be read is named with what to do.
func TestSecret(t *testing.T) {
	client := fake.NewClientset()
	a, b := NewSecret(client.CoreV1(), namespace), NewSecret(client.CoreV1(), namespace)
	for _, s := range []*Secret{a, b} {
		if _, err := s.Load(t.Context()); !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := a.Save(t.Context(), []byte("a")); err != nil {
		t.Fatal(err)
	}
	if err := b.Save(t.Context(), []byte("b")); !errors.Is(err, ca.ErrConflict) {
		t.Fatalf("both made one: %v", err)
	}
	if got, err := b.Load(t.Context()); err != nil || string(got) != "a" {
		t.Fatalf("%q, %v", got, err)
	}
	if err := b.Save(t.Context(), []byte("rotated")); err != nil {
		t.Fatal(err)
	}
	// It goes while it is known: that is a conflict, too, and not a reason to make it anew unseen.
	if err := client.CoreV1().Secrets(namespace).Delete(t.Context(), SecretName, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := b.Save(t.Context(), []byte("c")); !errors.Is(err, ca.ErrConflict) {
		t.Fatalf("gone: %v", err)
	}
	if _, err := client.CoreV1().Secrets(namespace).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: SecretName, Namespace: namespace}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Load(t.Context()); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "delete secret ambit-ca") {
		t.Fatalf("an empty Secret: %v", err)
	}
	client.PrependReactor("update", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewConflict(schema.GroupResource{Resource: "secrets"}, SecretName, errors.New("another version"))
	})
	s := NewSecret(client.CoreV1(), namespace)
	s.last = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: SecretName, Namespace: namespace}, Data: map[string][]byte{}}
	if err := s.Save(t.Context(), []byte("d")); !errors.Is(err, ca.ErrConflict) {
		t.Fatalf("another version: %v", err)
	}
}

// TestBundle: every namespace gets the roots once, again when they change, and a
// failure is repeated without a storm.
func TestBundle(t *testing.T) {
	client := fake.NewClientset()
	roots, there := "one", []string{"a", "b"}
	b, err := NewBundle(client, func() string { return roots }, func() []string { return there }, zaptest.NewLogger(t), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	var failing, writes int
	client.PrependReactor("patch", "configmaps", func(action clienttesting.Action) (bool, runtime.Object, error) {
		writes++
		if action.GetNamespace() == "b" && failing > 0 {
			failing--
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, BundleName, errors.New("no"))
		}
		return false, nil, nil
	})
	now := time.Unix(1000, 0)
	p := published{at: now}
	step := func(after time.Duration, want int) {
		t.Helper()
		now = now.Add(after)
		writes = 0
		b.publish(t.Context(), &p, now)
		if writes != want {
			t.Errorf("%d writes, want %d", writes, want)
		}
	}
	read := func(ns string) string {
		t.Helper()
		cm, err := client.CoreV1().ConfigMaps(ns).Get(t.Context(), BundleName, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return cm.Data[BundleKey]
	}
	step(0, 2)
	step(time.Second, 0) // at rest nothing is written
	there = []string{"a", "b", "c"}
	step(time.Second, 1)
	if got := read("c"); got != "one" {
		t.Errorf("c has %q", got)
	}
	roots, failing = "one\ntwo", 1
	step(time.Second, 3)
	step(time.Second, 0) // not at once again
	step(failedAfter, 1)
	if got := read("b"); got != "one\ntwo" {
		t.Errorf("b has %q", got)
	}
	there = []string{"a", "b"}
	step(time.Second, 0)
	there = []string{"a", "b", "c"} // made anew
	step(time.Second, 1)
	step(anewEvery+time.Second, 3)
}

// runner notes who runs.
type runner struct {
	running *atomic.Int32
	most    *atomic.Int32
}

func (r runner) Run(ctx context.Context) error {
	if n := r.running.Add(1); n > r.most.Load() {
		r.most.Store(n)
	}
	defer r.running.Add(-1)
	<-ctx.Done()
	return nil
}

// TestLeader: one of two leads. One that stops hands over at once, and one that is
// cut off stops before the other begins.
func TestLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		var running, most atomic.Int32
		var cut atomic.Bool
		client.PrependReactor("*", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
			return cut.Load(), nil, errors.New("connection refused")
		})
		contender := func(name string, c *fake.Clientset) *Leader {
			return NewLeader(c.CoordinationV1(), namespace, name, func() *lifecycle.Group {
				var g lifecycle.Group
				g.Add("what only one does", runner{&running, &most})
				return &g
			}, zaptest.NewLogger(t))
		}
		start := func(l *Leader) func() {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- l.Run(ctx) }()
			return func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		}
		a, b := contender("a", client), contender("b", client)
		stopA := start(a)
		time.Sleep(time.Second)
		stopB := start(b)
		defer stopB()
		time.Sleep(30 * time.Second)
		if !a.Leads() || b.Leads() || running.Load() != 1 {
			t.Fatalf("a leads %v, b leads %v, %d run", a.Leads(), b.Leads(), running.Load())
		}
		stopA()
		time.Sleep(5 * time.Second)
		if a.Leads() || !b.Leads() {
			t.Fatal("not handed over")
		}
		// b is cut off: it cannot renew, and must be quiet before the lease ends.
		cut.Store(true)
		time.Sleep(14 * time.Second)
		if b.Leads() || running.Load() != 0 {
			t.Fatal("it leads on without a lease")
		}
		cut.Store(false)
		time.Sleep(30 * time.Second)
		if !b.Leads() || running.Load() != 1 || most.Load() != 1 {
			t.Fatalf("back: leads %v, %d run, at most %d at once", b.Leads(), running.Load(), most.Load())
		}
	})
}
