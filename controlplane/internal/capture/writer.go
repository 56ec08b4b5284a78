package capture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/ambit-mesh/ambit/controlplane/compile"
)

const (
	// parallel bounds how many pods are written at once.
	parallel = 16
	// retries of a write that another one came before, such as the kubelet's.
	retries = 10
	// seenWithin is how long the API server has to show us what was written.
	seenWithin = 10 * time.Second
	// writeRetry is the pause after a release could not be written.
	writeRetry = time.Second
	// maxEarly bounds what one node's agent may say of pods that are not known yet.
	maxEarly = 4096
)

// Mesh is what is known of pods.
type Mesh interface {
	PodState(uid types.UID) (compile.PodState, bool)
	CapturedOn(node string) []compile.PodState
}

// Awaiter waits until a condition holds of what is distributed.
type Awaiter interface {
	Await(ctx context.Context, holds func() bool) error
}

// Writer writes the condition.
type Writer struct {
	pods    corev1client.PodsGetter
	mesh    Mesh
	engine  Awaiter
	log     *zap.Logger
	now     func() time.Time
	written *prometheus.CounterVec

	mu sync.Mutex
	// early are reports on pods that are not known yet, by node: an agent learns of a
	// new pod from the container runtime, which can be first.
	early map[string]map[types.UID]compile.PodCapture // guarded by mu
}

// New gives a writer.
func New(pods corev1client.PodsGetter, mesh Mesh, engine Awaiter, log *zap.Logger, reg prometheus.Registerer) (*Writer, error) {
	w := &Writer{
		pods: pods, mesh: mesh, engine: engine, log: log, now: time.Now, early: make(map[string]map[types.UID]compile.PodCapture),
		written: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_controlplane_captured_conditions_total", Help: "Writes of the pod condition ambit-mesh.io/Captured, by outcome.",
		}, []string{"outcome"}),
	}
	if err := reg.Register(w.written); err != nil {
		return nil, fmt.Errorf("capture: metrics: %w", err)
	}
	return w, nil
}

// Report takes a node agent's report. It returns when what was reported is in the
// pods, and part of what this replica distributes.
func (w *Writer) Report(ctx context.Context, r compile.CaptureReport) error {
	pods := r.Pods
	if r.Snapshot {
		pods = append(pods, w.missing(r)...)
		w.mu.Lock()
		delete(w.early, r.Node)
		w.mu.Unlock()
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, p := range pods {
		if _, ok := w.mesh.PodState(p.UID); !ok {
			w.keep(r.Node, p)
			continue
		}
		g.Go(func() error { return w.report(ctx, r.Node, p) })
	}
	return g.Wait()
}

// missing gives the captured pods of the node that its snapshot does not name.
func (w *Writer) missing(r compile.CaptureReport) []compile.PodCapture {
	named := make(map[types.UID]struct{}, len(r.Pods))
	for _, p := range r.Pods {
		named[p.UID] = struct{}{}
	}
	var out []compile.PodCapture
	for _, s := range w.mesh.CapturedOn(r.Node) {
		if _, ok := named[s.UID]; !ok {
			out = append(out, compile.PodCapture{UID: s.UID})
		}
	}
	return out
}

func (w *Writer) keep(node string, p compile.PodCapture) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch pods := w.early[node]; {
	case !p.Captured && p.Message == "":
		delete(pods, p.UID)
	case pods == nil:
		w.early[node] = map[types.UID]compile.PodCapture{p.UID: p}
	case len(pods) < maxEarly:
		pods[p.UID] = p
	}
}

// Run takes up reports on pods that have become known, until ctx ends.
func (w *Writer) Run(ctx context.Context) error {
	for {
		var due []compile.CaptureReport
		err := w.engine.Await(ctx, func() bool {
			due = w.due()
			return len(due) > 0
		})
		if err != nil {
			return nil // ctx has ended, or the engine has
		}
		for _, r := range due {
			if err := w.Report(ctx, r); err != nil && ctx.Err() == nil {
				w.log.Error("early capture report not written; the agent's next snapshot repeats it", zap.String("node", r.Node), zap.Error(err))
			}
		}
	}
}

// due takes out the early reports on pods that are known now.
func (w *Writer) due() []compile.CaptureReport {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []compile.CaptureReport
	for node, pods := range w.early {
		r := compile.CaptureReport{Node: node}
		for uid, p := range pods {
			if _, ok := w.mesh.PodState(uid); ok {
				r.Pods = append(r.Pods, p)
				delete(pods, uid)
			}
		}
		if len(pods) == 0 {
			delete(w.early, node)
		}
		if len(r.Pods) > 0 {
			out = append(out, r)
		}
	}
	return out
}

func (w *Writer) report(ctx context.Context, node string, p compile.PodCapture) error {
	s, ok := w.mesh.PodState(p.UID)
	if !ok || s.Node != node { // gone, or none of the agent's business
		return nil
	}
	if _, changes := reported(s.Condition, s.Wanted, p); !changes {
		return nil
	}
	return w.write(ctx, s, func(now corev1.PodCondition) (corev1.PodCondition, bool) {
		return reported(now, s.Wanted, p)
	})
}

// Release says of pods that no peer uses a tunnel to them any more. It tries until
// it has done so, or ctx ends, or the pods are wanted again.
func (w *Writer) Release(ctx context.Context, releases []compile.Release) {
	g := &errgroup.Group{}
	g.SetLimit(parallel)
	for _, r := range releases {
		g.Go(func() error {
			w.release(ctx, r)
			return nil
		})
	}
	_ = g.Wait() // None of them gives an error.
}

func (w *Writer) release(ctx context.Context, r compile.Release) {
	for {
		s, ok := w.mesh.PodState(r.UID)
		if !ok || !s.Releasing || s.Epoch != r.Epoch {
			return
		}
		err := w.write(ctx, s, released)
		if err == nil || ctx.Err() != nil {
			return
		}
		w.log.Error("release not written; the pod stays captured until it is", zap.Stringer("pod", s.Name), zap.Duration("retryIn", writeRetry), zap.Error(err))
		select {
		case <-ctx.Done():
			return
		case <-time.After(writeRetry):
		}
	}
}

// write changes the condition of a pod, and returns when the compiler has it.
func (w *Writer) write(ctx context.Context, s compile.PodState, next func(corev1.PodCondition) (corev1.PodCondition, bool)) error {
	version, err := w.patch(ctx, s, next)
	switch {
	case err != nil:
		w.written.WithLabelValues("failed").Inc()
		return fmt.Errorf("condition %s of pod %s: %w", compile.ConditionCaptured, s.Name, err)
	case version == "":
		return nil
	}
	w.written.WithLabelValues("written").Inc()
	ctx, cancel := context.WithTimeoutCause(ctx, seenWithin, fmt.Errorf("pod %s: what was written has not been seen within %s", s.Name, seenWithin))
	defer cancel()
	return w.engine.Await(ctx, func() bool {
		now, ok := w.mesh.PodState(s.UID)
		return !ok || !older(now.ResourceVersion, version)
	})
}

// patch gives the resource version that has what next gives, "" if there is nothing
// to wait for.
func (w *Writer) patch(ctx context.Context, s compile.PodState, next func(corev1.PodCondition) (corev1.PodCondition, bool)) (string, error) {
	pods := w.pods.Pods(s.Name.Namespace)
	var err error
	for range retries {
		var pod *corev1.Pod
		pod, err = pods.Get(ctx, s.Name.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && pod.UID != s.UID {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		before := compile.CapturedCondition(pod)
		cond, changes := next(before)
		if !changes {
			// Another replica has written it: it is to be seen here, too.
			return pod.ResourceVersion, nil
		}
		cond.LastTransitionTime = before.LastTransitionTime
		if before.Status != cond.Status {
			cond.LastTransitionTime = metav1.NewTime(w.now())
		}
		var body []byte
		if body, err = statusPatch(pod, cond); err != nil {
			return "", err
		}
		pod, err = pods.Patch(ctx, s.Name.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{FieldManager: "ambit-mesh.io/controlplane"}, "status")
		if err == nil {
			return pod.ResourceVersion, nil
		}
		if apierrors.IsNotFound(err) {
			return "", nil
		}
		if !apierrors.IsConflict(err) {
			return "", err
		}
	}
	return "", err
}

// statusPatch touches one condition of the pod in this very version.
func statusPatch(pod *corev1.Pod, cond corev1.PodCondition) ([]byte, error) {
	type meta struct {
		UID             types.UID `json:"uid"`
		ResourceVersion string    `json:"resourceVersion"`
	}
	type status struct {
		Conditions []corev1.PodCondition `json:"conditions"`
	}
	return json.Marshal(struct {
		Metadata meta   `json:"metadata"`
		Status   status `json:"status"`
	}{meta{pod.UID, pod.ResourceVersion}, status{[]corev1.PodCondition{cond}}})
}

// older says whether a resource version is from before another. They are numbers
// that rise; what is none is not older, so that nobody waits for ever.
func older(a, b string) bool {
	x, errX := strconv.ParseUint(a, 10, 64)
	y, errY := strconv.ParseUint(b, 10, 64)
	return errors.Join(errX, errY) == nil && x < y
}
