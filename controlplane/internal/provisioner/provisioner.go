package provisioner

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"time"

	"go.uber.org/zap"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/provision"
)

// FieldManager is by whom the mesh's fields are owned.
const FieldManager = "ambit-mesh.io/controlplane"

// Source tells which waypoints there are to be.
type Source interface {
	Waypoint(n types.NamespacedName) (compile.Waypoint, bool)
	Waypoints() []compile.Waypoint
}

// Recorder tells people by events.
type Recorder interface {
	Eventf(regarding, related runtime.Object, eventtype, reason, action, note string, args ...any)
}

// Config is what a Provisioner is made of.
type Config struct {
	// Client reads and writes past any cache.
	Client client.Client
	// Cache makes what tells, of objects that Owned selects, what becomes of them;
	// Run runs it. Without one, nothing is heard.
	Cache   func() (cache.Cache, error)
	Source  Source
	Options provision.Options
	// Refusals is called when what keeps a waypoint's objects from being made has
	// changed.
	Refusals func(n types.NamespacedName)
	Events   Recorder
	// Resync is how often everything is looked at, whatever was heard, and
	// Parameters how often ConfigMaps of parameters are read; 15 min and 20 s.
	Resync, Parameters time.Duration
	Log                *zap.Logger
}

// Provisioner makes the objects of waypoints.
type Provisioner struct {
	cfg Config

	mu      sync.Mutex
	queue   queue                                        // guarded by mu; there while Run is
	refused map[types.NamespacedName][]provision.Problem // guarded by mu
	// made is what was made last and is still so as far as is known; guarded by mu.
	made map[types.NamespacedName]provision.Objects
}

type queue = workqueue.TypedRateLimitingInterface[types.NamespacedName]

// New gives a provisioner that has nothing to do yet.
func New(cfg Config) *Provisioner {
	if cfg.Resync == 0 {
		cfg.Resync = 15 * time.Minute
	}
	if cfg.Parameters == 0 {
		cfg.Parameters = 20 * time.Second
	}
	return &Provisioner{cfg: cfg, refused: make(map[types.NamespacedName][]provision.Problem)}
}

// kinds are what waypoints are made of.
func kinds() []schema.GroupVersionKind {
	return []schema.GroupVersionKind{
		corev1.SchemeGroupVersion.WithKind("ServiceAccount"), corev1.SchemeGroupVersion.WithKind("Service"),
		policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget"), appsv1.SchemeGroupVersion.WithKind("Deployment"),
		autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"),
	}
}

// Refused gives what keeps the objects of a waypoint from being made.
func (p *Provisioner) Refused(n types.NamespacedName) []provision.Problem {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused[n]
}

// Changed says that a waypoint may be another, or gone.
func (p *Provisioner) Changed(names ...types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range names {
		if p.queue != nil {
			p.queue.Add(n)
		}
	}
}

// disturbed says that somebody has changed what was made for a waypoint.
func (p *Provisioner) disturbed(n types.NamespacedName) {
	p.mu.Lock()
	delete(p.made, n)
	p.mu.Unlock()
	p.Changed(n)
}

// Run makes and repairs until ctx ends. It begins with a look at everything.
func (p *Provisioner) Run(ctx context.Context) error {
	q := workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](100*time.Millisecond, time.Minute),
		workqueue.TypedRateLimitingQueueConfig[types.NamespacedName]{Name: "provisioner"})
	p.mu.Lock()
	p.queue, p.made = q, make(map[types.NamespacedName]provision.Objects)
	p.mu.Unlock()
	stop := context.AfterFunc(ctx, q.ShutDown)
	defer stop()
	var running sync.WaitGroup
	if err := p.follow(ctx, &running); err != nil {
		q.ShutDown()
		return err
	}
	running.Go(func() { p.work(ctx, q) })
	running.Go(func() { p.survey(ctx) })
	running.Wait()
	p.mu.Lock()
	p.queue, p.made = nil, nil
	p.mu.Unlock()
	return nil
}

func (p *Provisioner) work(ctx context.Context, q queue) {
	for {
		n, down := q.Get()
		if down {
			return
		}
		if err := p.process(ctx, n); err != nil && ctx.Err() == nil {
			p.cfg.Log.Warn("waypoint not provisioned; it is tried again", zap.Stringer("gateway", n), zap.Error(err))
			q.AddRateLimited(n)
		} else {
			q.Forget(n)
		}
		q.Done(n)
	}
}

// process brings the objects of one waypoint to what they are to be.
func (p *Provisioner) process(ctx context.Context, n types.NamespacedName) error {
	w, ok := p.cfg.Source.Waypoint(n)
	if !ok {
		p.refuse(n, nil, nil)
		return p.prune(ctx, n, provision.Objects{})
	}
	if len(w.Verdict.Problems) > 0 {
		// What was made for it stays, so that a slip of the pen costs no pods.
		// Nobody is led there meanwhile.
		p.refuse(n, nil, nil)
		return nil
	}
	if p.cfg.Options.Image == "" {
		p.refuse(n, []provision.Problem{{Field: "control plane", Message: "has no image for waypoints: start it with --waypoint-image"}}, &w)
		return nil
	}
	objects := provision.Make(w.Gateway, p.cfg.Options)
	problems, err := p.parameters(ctx, w, &objects)
	if err != nil {
		return err
	}
	if len(problems) > 0 {
		p.refuse(n, problems, &w)
		return nil
	}
	p.mu.Lock()
	have, ok := p.made[n]
	p.mu.Unlock()
	if ok && reflect.DeepEqual(have, objects) {
		return nil
	}
	for _, obj := range objects.All() {
		problem, err := p.ensure(ctx, obj)
		if err != nil {
			return fmt.Errorf("%s: %w", obj.GetObjectKind().GroupVersionKind().Kind, err)
		}
		problems = append(problems, problem...)
	}
	p.refuse(n, problems, &w)
	if err := p.prune(ctx, n, objects); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(problems) == 0 && p.made != nil {
		p.made[n] = objects
	}
	return nil
}

// parameters merges the ConfigMap that a Gateway refers to.
func (p *Provisioner) parameters(ctx context.Context, w compile.Waypoint, o *provision.Objects) ([]provision.Problem, error) {
	ref := provision.Parameters(w.Gateway)
	if ref == nil {
		return nil, nil
	}
	var params corev1.ConfigMap
	err := p.cfg.Client.Get(ctx, types.NamespacedName{Namespace: w.Gateway.Namespace, Name: ref.Name}, &params)
	if client.IgnoreNotFound(err) != nil {
		return nil, err
	}
	const field = "spec.infrastructure.parametersRef"
	if err != nil {
		return []provision.Problem{{Field: field, Message: "there is no ConfigMap " + w.Gateway.Namespace + "/" + ref.Name + ": create it, or remove the reference"}}, nil
	}
	problems := provision.Overlay(o, params.Data)
	for i := range problems {
		problems[i].Field = field + ": ConfigMap " + params.Namespace + "/" + params.Name + ": data[" + problems[i].Field + "]"
	}
	return problems, nil
}

// refuse notes why objects could not be made, and says so if that is news.
func (p *Provisioner) refuse(n types.NamespacedName, problems []provision.Problem, w *compile.Waypoint) {
	p.mu.Lock()
	before := p.refused[n]
	if len(problems) == 0 {
		delete(p.refused, n)
	} else {
		p.refused[n] = problems
	}
	p.mu.Unlock()
	if len(before) == len(problems) && (len(before) == 0 || reflect.DeepEqual(before, problems)) {
		return
	}
	if p.cfg.Refusals != nil {
		p.cfg.Refusals(n)
	}
	if len(problems) == 0 || p.cfg.Events == nil || !w.Implied {
		return // a Gateway has a status, whose writer tells
	}
	ns := &corev1.Namespace{}
	ns.Name, ns.APIVersion, ns.Kind = n.Namespace, "v1", "Namespace"
	p.cfg.Events.Eventf(ns, nil, corev1.EventTypeWarning, "WaypointRefused", "Provision", "waypoint %s, which the label asks for: %s", n.Name, problems[0].String())
}

// survey queues every waypoint, and what is left of others, at the start and then
// now and then.
func (p *Provisioner) survey(ctx context.Context) {
	everything := time.NewTicker(p.cfg.Resync)
	defer everything.Stop()
	parameters := time.NewTicker(p.cfg.Parameters)
	defer parameters.Stop()
	p.surveyAll(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-everything.C:
			p.surveyAll(ctx)
		case <-parameters.C:
			for _, w := range p.cfg.Source.Waypoints() {
				if provision.Parameters(w.Gateway) != nil {
					p.Changed(client.ObjectKeyFromObject(w.Gateway))
				}
			}
		}
	}
}

func (p *Provisioner) surveyAll(ctx context.Context) {
	for _, w := range p.cfg.Source.Waypoints() {
		p.disturbed(client.ObjectKeyFromObject(w.Gateway))
	}
	for _, kind := range kinds() {
		left, err := p.owned(ctx, kind)
		if err != nil && ctx.Err() == nil {
			p.cfg.Log.Warn("what is left of former waypoints could not be looked for", zap.String("kind", kind.Kind), zap.Error(err))
		}
		for _, obj := range left {
			p.Changed(waypointOf(obj))
		}
	}
}
