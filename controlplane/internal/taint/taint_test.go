package taint

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/ambit-mesh/ambit/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var born = time.Unix(1_000_000, 0)

func node(name string, age time.Duration, annotations map[string]string, taints ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(born.Add(-age)), Annotations: annotations}}
	for _, k := range taints {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: k, Effect: corev1.TaintEffectNoSchedule})
	}
	return n
}

type cluster struct {
	client.Client
	t *testing.T
}

// taints gives the keys of a node's taints.
func (c cluster) taints(name string) []string {
	c.t.Helper()
	var n corev1.Node
	if err := c.Get(c.t.Context(), client.ObjectKey{Name: name}, &n); err != nil {
		c.t.Fatal(err)
	}
	var out []string
	for _, t := range n.Spec.Taints {
		out = append(out, t.Key)
	}
	return out
}

// TestKeeper: only nodes that came after the mesh and never had an agent are
// tainted; an agent's report takes the taint off, for good, and leaves others.
func TestKeeper(t *testing.T) {
	conflicts := 2
	c := cluster{t: t, Client: fake.NewClientBuilder().WithObjects(
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ambit-system", CreationTimestamp: metav1.NewTime(born)}},
		node("older", time.Hour, nil), node("fresh", -time.Hour, nil, "theirs"), node("known", -time.Hour, map[string]string{AnnotationReported: "true"}),
	).WithInterceptorFuncs(interceptor.Funcs{Patch: func(ctx context.Context, w client.WithWatch, obj client.Object, p client.Patch, o ...client.PatchOption) error {
		if conflicts > 0 {
			conflicts--
			return apierrors.NewConflict(schema.GroupResource{Resource: "nodes"}, obj.GetName(), errors.New("another version"))
		}
		return w.Patch(ctx, obj, p, o...)
	}}).Build()}
	k := New(c, "ambit-system", zaptest.NewLogger(t))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	term, stop := context.WithCancel(ctx)
	watched := make(chan error, 1)
	go func() { watched <- k.Watcher().Run(term) }()
	testkit.Until(t, "fresh is tainted", func() bool { return slices.Equal(c.taints("fresh"), []string{"theirs", Key}) })
	if err := c.Create(ctx, node("later", -time.Hour, nil)); err != nil {
		t.Fatal(err)
	}
	k.Seen("later")
	testkit.Until(t, "a later one is tainted", func() bool { return slices.Equal(c.taints("later"), []string{Key}) })

	go func() { ended <- k.Run(ctx) }()
	k.Reported("fresh")
	testkit.Until(t, "the agent is there", func() bool { return slices.Equal(c.taints("fresh"), []string{"theirs"}) })
	k.Seen("fresh")
	k.Seen("gone")
	k.Reported("gone")
	// The next term has a queue of its own, and still hears of nodes.
	stop()
	if err := <-watched; err != nil {
		t.Error(err)
	}
	go func() { watched <- k.Watcher().Run(ctx) }()
	if err := c.Create(ctx, node("last", -time.Hour, nil)); err != nil {
		t.Fatal(err)
	}
	k.Seen("last")
	testkit.Until(t, "the last one is tainted", func() bool { return slices.Equal(c.taints("last"), []string{Key}) })
	for _, name := range []string{"older", "known"} {
		if got := c.taints(name); len(got) > 0 {
			t.Errorf("%s has taints %v", name, got)
		}
	}
	if got := c.taints("fresh"); !slices.Equal(got, []string{"theirs"}) {
		t.Errorf("fresh, whose agent has reported, has taints %v", got)
	}
	cancel()
	if err := errors.Join(<-ended, <-watched); err != nil {
		t.Error(err)
	}
}
