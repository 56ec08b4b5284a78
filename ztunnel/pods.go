package ztunnel

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/lifecycle"
	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/zds"
	"github.com/ambit-mesh/ambit/ztunnel/internal/proxy"
)

// readyTimeout bounds how long the agent waits for a new pod's certificate. The
// agent captures a pod after we said yes, so that a pod is not cut off by an
// authority that does not answer.
const readyTimeout = 3 * time.Second

// pods are the captured pods that are proxied. It implements zds.Handler.
type pods struct {
	cfg         proxy.Config
	trustDomain string
	certs       *certs.Manager
	log         *zap.Logger
	metrics     podMetrics
	readiness   *lifecycle.Readiness

	mu      sync.Mutex
	ctx     context.Context // of Run; guarded by mu
	running map[string]*running
	waiting *lifecycle.Task // while another ztunnel serves some; guarded by mu
	wg      sync.WaitGroup
}

// running is one pod.
type running struct {
	pod    *proxy.Pod
	info   zds.Workload
	netns  netns.ID
	stop   context.CancelFunc
	err    error // what keeps it from being ready; guarded by pods.mu
	closed chan struct{}
}

type podMetrics struct {
	active, pending  prometheus.Gauge
	started, stopped prometheus.Counter
}

var _ zds.Successor = (*pods)(nil)

func newPods(cfg proxy.Config, trustDomain string, manager *certs.Manager, readiness *lifecycle.Readiness, r prometheus.Registerer) *pods {
	m := podMetrics{
		active:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "workload_manager_active_proxy_count", Help: "Pods that are proxied."}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{Name: "workload_manager_pending_proxy_count", Help: "Pods that are to be proxied and are not ready."}),
		started: prometheus.NewCounter(prometheus.CounterOpts{Name: "workload_manager_proxies_started_total", Help: "Pods whose proxying began."}),
		stopped: prometheus.NewCounter(prometheus.CounterOpts{Name: "workload_manager_proxies_stopped_total", Help: "Pods whose proxying ended."}),
	}
	r.MustRegister(m.active, m.pending, m.started, m.stopped)
	return &pods{cfg: cfg, trustDomain: trustDomain, certs: manager, log: cfg.Log, metrics: m, readiness: readiness, running: make(map[string]*running)}
}

// Run lets pods be added until ctx ends, and then waits until all have drained.
func (p *pods) Run(ctx context.Context) error {
	p.mu.Lock()
	p.ctx = ctx
	p.mu.Unlock()
	<-ctx.Done()
	p.mu.Lock()
	for _, r := range p.running {
		r.stop()
	}
	p.mu.Unlock()
	p.wg.Wait()
	return nil
}

// Add implements zds.Handler.
func (p *pods) Add(ctx context.Context, uid string, w zds.Workload, ns *netns.Namespace) error {
	_, err := p.add(ctx, uid, w, ns, zds.Handover{})
	return err
}

// Serving implements zds.Successor.
func (p *pods) Serving() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.running {
		if r.pod.Begun() {
			return true
		}
	}
	return false
}

// TakeOver implements zds.Successor. While another ztunnel serves the pod this one
// begins only when it has a certificate: until then the other does better.
func (p *pods) TakeOver(ctx context.Context, uid string, w zds.Workload, ns *netns.Namespace, h zds.Handover) ([]int, error) {
	r, err := p.add(ctx, uid, w, ns, h)
	if err != nil {
		return nil, err
	}
	return r.pod.Listeners()
}

func (p *pods) add(ctx context.Context, uid string, w zds.Workload, ns *netns.Namespace, h zds.Handover) (*running, error) {
	p.mu.Lock()
	r := p.running[uid]
	if r != nil && r.netns == ns.ID() {
		p.mu.Unlock()
		_ = ns.Close()
		for _, fd := range h.Listeners {
			_ = unix.Close(fd)
		}
		return r, p.ready(ctx, r, h.Served)
	}
	if r != nil {
		p.dropLocked(uid)
	}
	r, err := p.startLocked(uid, w, ns, h.Listeners)
	p.mu.Unlock()
	if err != nil {
		_ = ns.Close()
		return nil, err
	}
	return r, p.ready(ctx, r, h.Served)
}

// startLocked owns the descriptors of listeners.
func (p *pods) startLocked(uid string, w zds.Workload, ns *netns.Namespace, listeners []int) (*running, error) {
	refuse := func(err error) (*running, error) {
		for _, fd := range listeners {
			_ = unix.Close(fd)
		}
		return nil, err
	}
	if p.ctx == nil || p.ctx.Err() != nil {
		return refuse(errors.New("ztunnel is starting or stopping"))
	}
	id := identity.ID{TrustDomain: p.trustDomain, Namespace: w.Namespace, ServiceAccount: w.ServiceAccount}
	if _, err := identity.Parse(id.String()); err != nil {
		return refuse(fmt.Errorf("pod %s/%s: %w", w.Namespace, w.Name, err))
	}
	source, release := p.certs.Use(id)
	pod, err := proxy.Open(p.cfg, proxy.Info{UID: uid, Namespace: w.Namespace, Name: w.Name}, ns, source, listeners...)
	if err != nil {
		release()
		return nil, err
	}
	ctx, stop := context.WithCancel(p.ctx)
	r := &running{pod: pod, info: w, netns: ns.ID(), stop: stop, closed: make(chan struct{})}
	p.running[uid] = r
	p.metrics.started.Inc()
	p.metrics.active.Inc()
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		defer close(r.closed)
		defer p.metrics.stopped.Inc()
		defer p.metrics.active.Dec()
		defer release()
		defer stop()
		if err := pod.Run(ctx); err != nil {
			p.log.Error("pod", zap.String("uid", uid), zap.Error(err))
		}
	}()
	p.log.Info("proxying pod", zap.String("pod", w.Namespace+"/"+w.Name), zap.String("uid", uid), zap.Stringer("identity", id))
	return r, nil
}

// ready waits for the pod's certificate. The pod stays, ready or not. Connections are
// accepted without one too, for those that go to where none is needed, unless another
// ztunnel serves them.
func (p *pods) ready(ctx context.Context, r *running, served bool) error {
	if !served || !r.pod.Adopted() {
		r.pod.Begin()
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	err := r.pod.Ready(ctx)
	if err == nil {
		r.pod.Begin()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	r.err = err
	p.countPendingLocked()
	return err
}

func (p *pods) countPendingLocked() {
	n, elsewhere := 0, 0
	for _, r := range p.running {
		if r.err != nil {
			n++
		}
		if !r.pod.Begun() {
			elsewhere++
		}
	}
	p.metrics.pending.Set(float64(n))
	switch {
	case elsewhere > 0 && p.waiting == nil:
		p.waiting = p.readiness.Task("pods that another ztunnel serves until there are certificates for them")
	case elsewhere == 0 && p.waiting != nil:
		p.waiting.Done()
		p.waiting = nil
	}
}

// Keep implements zds.Handler.
func (p *pods) Keep(_ context.Context, uid string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running[uid] == nil {
		return fmt.Errorf("pod %s: not proxied, and no network namespace was given", uid)
	}
	return nil
}

// Del implements zds.Handler. The pod's connections go on for the drain time.
func (p *pods) Del(_ context.Context, uid string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropLocked(uid)
	return nil
}

func (p *pods) dropLocked(uid string) {
	r := p.running[uid]
	if r == nil {
		return
	}
	delete(p.running, uid)
	r.pod.Release()
	r.stop()
	p.countPendingLocked()
	p.log.Info("no longer proxying pod", zap.String("pod", r.info.Namespace+"/"+r.info.Name), zap.String("uid", uid))
}

// Retain implements zds.Handler.
func (p *pods) Retain(_ context.Context, named map[string]struct{}) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for uid := range p.running {
		if _, ok := named[uid]; !ok {
			p.dropLocked(uid)
		}
	}
	return nil
}

func (p *pods) dump() map[string]podDump {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[string]podDump, len(p.running))
	for uid, r := range p.running {
		d := podDump{State: "Up", Netns: r.netns.String(), Connections: r.pod.Connections()}
		if r.err != nil {
			d.State, d.Error = "Pending", r.err.Error()
		}
		d.Info.Name, d.Info.Namespace, d.Info.ServiceAccount = r.info.Name, r.info.Namespace, r.info.ServiceAccount
		out[uid] = d
	}
	return out
}
