package controlplane

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nodepb "github.com/ambit-mesh/ambit/apis/node"
	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// clients is a distributor that records what it is given, and whose subscribers
// acknowledge when told to.
type clients struct {
	mu    sync.Mutex
	have  map[compile.Key]*compile.Resource // guarded by mu
	acked chan struct{}                     // closed: all have
}

func (c *clients) Apply(d compile.Delta) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range d.Updated {
		c.have[r.Key] = r
	}
	return 1, nil
}

func (c *clients) AckedBy(ctx context.Context, _ string, _ uint64) ([]string, error) {
	select {
	case <-c.acked:
		return nil, nil
	case <-ctx.Done():
		return []string{"n9"}, ctx.Err()
	}
}

func (c *clients) KnownTo(ctx context.Context, t string, v uint64) ([]string, error) {
	return c.AckedBy(ctx, t, v)
}

func (c *clients) Connected() int { return 1 }

// captured says what the node agent of cart's pod is told; known, if anything.
func (c *clients) captured() (captured, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.have[compile.Key{Type: compile.TypePod, Name: "uid-cart"}]
	if !ok {
		return false, false
	}
	return r.Body.(*nodepb.Pod).Captured, true
}

func startEngine(t *testing.T, stateDir string, timeout time.Duration) (*engine, *clients) {
	t.Helper()
	compiler, err := compile.New(compile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	c := &clients{have: make(map[compile.Key]*compile.Resource), acked: make(chan struct{})}
	e, err := newEngine(compiler, c, stateDir, Config{ReleaseTimeout: timeout}.withDefaults(), m)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return e, c
}

// shop is a namespace and a pod of it on n1.
func shop(mode string) compile.Input {
	return compile.Input{Upserts: []graph.Entry{
		{Object: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"ambit-mesh.io/dataplane-mode": mode}}}},
		{Object: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "cart", Namespace: "shop", UID: "uid-cart"},
			Spec:       corev1.PodSpec{NodeName: "n1"},
			Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.1.4"},
		}},
	}}
}

func TestNothingIsDistributedThatASuccessorWouldNotKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "missing") // so that nothing can be written
		e, _ := startEngine(t, dir, time.Second)
		e.Objects(shop("ambient"))
		reported := make(chan error, 1)
		go func() {
			reported <- e.Report(t.Context(), compile.CaptureReport{Node: "n1", Pods: []compile.PodCapture{{UID: "uid-cart", Captured: true}}})
		}()
		time.Sleep(10 * persistRetry)
		synctest.Wait()
		if len(reported) > 0 {
			t.Fatal("acknowledged without being durable")
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := <-reported; err != nil {
			t.Fatal(err)
		}
		j, torn, err := openCaptured(filepath.Join(dir, capturedName))
		if err != nil || torn != nil || len(j.pods) != 1 {
			t.Fatalf("on disk %v, %v, %v", j, torn, err)
		}
	})
}

func TestReleaseJustAfterAStartWaitsForClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), capturedName)
		j, _, err := openCaptured(file)
		if err == nil {
			err = j.save([]compile.CapturedPod{{UID: "uid-cart", Node: "n1"}})
		}
		if err != nil {
			t.Fatal(err)
		}
		e, c := startEngine(t, filepath.Dir(file), 5*time.Second)
		close(c.acked)          // nobody is connected yet, so nobody is waited for
		e.Objects(shop("none")) // the label went while no control plane ran
		time.Sleep(5*time.Second - time.Millisecond)
		synctest.Wait()
		if captured, known := c.captured(); !known || !captured {
			t.Fatal("released before ztunnels had time to connect")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if captured, _ := c.captured(); captured {
			t.Fatal("not released")
		}
	})
}
