package pods

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/zds"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/ledger"
)

// How many pods have their rules changed at a time.
const kernelParallelism = 4

// Set is the pods of the node.
type Set struct {
	cfg     Config
	metrics *metrics
	kernel  chan struct{} // a token for each pod whose rules are being changed
	spawn   chan struct{} // capacity 1: idle is not empty

	saveMu  sync.Mutex // one save at a time; taken before mu
	probeMu sync.Mutex // one change of the probes' addresses at a time; taken before mu

	mu       sync.Mutex
	pods     map[string]*pod     // guarded by mu
	enrolled map[string]struct{} // guarded by mu; namespaces
	idle     []*pod              // guarded by mu; whose goroutines are to be started
	leaving  bool                // guarded by mu; every pod is released, and stays so
	left     bool                // guarded by mu; nothing of ours is on the node any more
	mirrors  map[string]string   // guarded by mu; uids of static pods, as kubelet and control plane have them
	seek     chan struct{}       // capacity 1: a pod without a namespace is wanted
	probes   chan struct{}       // capacity 1: the captured pods have changed
	// forbidden are the node's own namespaces, began is when the agent started;
	// both set by Restore.
	forbidden map[netns.ID]string
	began     time.Time
}

// New makes a Set; Restore fills it, Run does the work.
func New(cfg Config) (*Set, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("pods: %w", err)
	}
	return &Set{
		cfg: cfg, metrics: m,
		kernel: make(chan struct{}, kernelParallelism), spawn: make(chan struct{}, 1),
		seek: make(chan struct{}, 1), probes: make(chan struct{}, 1),
		pods: make(map[string]*pod), enrolled: make(map[string]struct{}), mirrors: make(map[string]string),
	}, nil
}

// Restore takes up what the ledger holds. Pods whose namespaces are gone are
// forgotten. Captured ones are handed to ztunnel before it can ask: a ztunnel
// drops what the first list does not name.
func (s *Set) Restore() error {
	forbidden, err := nodeNamespaces()
	if err != nil {
		return err
	}
	state, err := s.cfg.Ledger.Load()
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.forbidden, s.began = forbidden, time.Now()
	for _, name := range state.Enrolled {
		s.enrolled[name] = struct{}{}
	}
	for _, rec := range state.Pods {
		if err := s.restoreLocked(rec); err != nil {
			s.cfg.Logger.Info("pod is gone since the last run", zap.String("pod", rec.Namespace+"/"+rec.Name), zap.String("uid", rec.UID), zap.Error(err))
		}
	}
	s.mu.Unlock()
	if err := s.saveEnrolled(); err != nil {
		return err
	}
	return s.save()
}

func (s *Set) restoreLocked(rec ledger.Pod) error {
	ns, err := netns.Open(rec.Netns)
	if err != nil {
		return err
	}
	if id := (netns.ID{Device: rec.Device, Inode: rec.Inode}); ns.ID() != id {
		_ = ns.Close()
		return fmt.Errorf("%s leads to %s now, it was %s", rec.Netns, ns.ID(), id)
	}
	p := s.podLocked(rec.UID)
	p.rec, p.ns = rec, ns
	p.inPlace = rec.Phase == ledger.Captured
	if rec.Phase != ledger.Released {
		if err := s.handLocked(p); err != nil {
			return err
		}
	}
	s.changedLocked(p)
	return nil
}

// podLocked gives the pod with the uid, a new one if need be.
func (s *Set) podLocked(uid string) *pod {
	p, ok := s.pods[uid]
	if !ok {
		p = newPod(uid)
		s.pods[uid] = p
		s.idle = append(s.idle, p)
		select {
		case s.spawn <- struct{}{}:
		default:
		}
	}
	return p
}

// Run works on the pods until ctx ends. They stay as they are then.
func (s *Set) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer s.close()
	defer wg.Wait()
	if s.cfg.Finder != nil {
		wg.Go(func() { s.find(ctx) })
	}
	if s.cfg.Prober != nil {
		wg.Go(func() { s.probe(ctx) })
	}
	for {
		s.mu.Lock()
		idle := s.idle
		s.idle = nil
		s.mu.Unlock()
		for _, p := range idle {
			wg.Go(func() { s.loop(ctx, p) })
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.spawn:
		}
	}
}

// close lets go of the namespaces.
func (s *Set) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pods {
		if p.ns != nil {
			_ = p.ns.Close()
		}
	}
}

// Word is what the control plane says about one pod.
type Word struct {
	UID            string
	Name           string
	Namespace      string
	ServiceAccount string
	Addrs          []netip.Addr
	Captured       bool
	Reason         string
	// What differs in the rules from those of other pods.
	DNSLeftAlone bool
}

// Apply takes in what the control plane says about a pod.
func (s *Set) Apply(w Word) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.podLocked(w.UID)
	wanted := Leave
	if w.Captured {
		wanted = Capture
	}
	if p.wanted != wanted {
		p.wanted, p.since = wanted, time.Now()
	}
	p.reason, p.addrs = w.Reason, w.Addrs
	if p.ns == nil && p.wanted == Capture {
		poke(s.seek)
	}
	p.rec.DNSLeftAlone = w.DNSLeftAlone
	p.rec.Name, p.rec.Namespace, p.rec.ServiceAccount = w.Name, w.Namespace, w.ServiceAccount
	s.changedLocked(p)
	p.nudge()
}

// Unname takes in that the control plane has no such pod any more. A captured
// pod stays captured until its namespace is gone.
func (s *Set) Unname(uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.pods[uid]
	if !ok {
		return
	}
	p.wanted, p.since, p.reason = Unknown, time.Now(), ""
	if p.ns == nil {
		s.removeLocked(p)
		return
	}
	s.changedLocked(p)
	p.nudge()
}

// Enroll takes in whether the pods of namespaces are enrolled by default. With
// all set, what is not named is not.
func (s *Set) Enroll(names map[string]bool, all bool) {
	s.mu.Lock()
	before := maps.Clone(s.enrolled)
	if all {
		clear(s.enrolled)
	}
	for name, enrolled := range names {
		if enrolled {
			s.enrolled[name] = struct{}{}
		} else {
			delete(s.enrolled, name)
		}
	}
	same := maps.Equal(before, s.enrolled)
	s.mu.Unlock()
	if same {
		return
	}
	if err := errors.Join(s.saveEnrolled(), s.save()); err != nil {
		s.cfg.Logger.Error("enrolled namespaces are not saved; trying again with the next change", zap.Error(err))
	}
}

// saveEnrolled leaves the enrolled namespaces for the CNI plugin.
func (s *Set) saveEnrolled() error {
	if s.cfg.SaveEnrolled == nil {
		return nil
	}
	s.saveMu.Lock()
	defer s.saveMu.Unlock()
	s.mu.Lock()
	names, leaving := sortedKeys(s.enrolled), s.leaving
	s.mu.Unlock()
	if leaving {
		return nil
	}
	return s.cfg.SaveEnrolled(names)
}

// ProxyResult takes in what a ztunnel says about a pod it was handed.
func (s *Set) ProxyResult(r zds.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.pods[r.UID]
	if !ok || p.ns == nil || p.handed == nil || r.Namespace != p.ns.ID() {
		return
	}
	if r.Err != nil {
		p.proxyErr = r.Err.Error()
		s.metrics.failures.WithLabelValues("listen").Inc()
	} else {
		p.acked, p.proxyErr = r.Namespace, ""
	}
	s.changedLocked(p)
	p.nudge()
}

// removeLocked forgets a pod altogether.
func (s *Set) removeLocked(p *pod) {
	delete(s.pods, p.uid)
	maps.DeleteFunc(s.mirrors, func(_, mirror string) bool { return mirror == p.uid })
	s.cfg.Reporter.Forget(p.uid)
	close(p.gone)
	close(p.changed)
	p.changed = make(chan struct{})
	s.countLocked()
}

// dropNamespaceLocked forgets a pod's namespace, which is gone or going, and the
// pod itself unless the control plane still names it.
func (s *Set) dropNamespaceLocked(p *pod) {
	s.withdrawLocked(p)
	_ = p.ns.Close()
	p.ns = nil
	p.rec = ledger.Pod{UID: p.uid, Name: p.rec.Name, Namespace: p.rec.Namespace, ServiceAccount: p.rec.ServiceAccount, Phase: ledger.Released}
	p.inPlace, p.stopped, p.err, p.attempts = false, false, "", 0
	p.since = time.Now()
	if p.wanted == Unknown {
		s.removeLocked(p)
		return
	}
	s.cfg.Reporter.Forget(p.uid)
	// The path may have been that of a process, which ended before its pod.
	poke(s.seek)
	s.changedLocked(p)
	p.nudge()
}

// changedLocked tells those who care: who waits for the pod to start, the control
// plane, and the metrics.
func (s *Set) changedLocked(p *pod) {
	close(p.changed)
	p.changed = make(chan struct{})
	if s.pods[p.uid] != p {
		return
	}
	if state, message, known := p.state(s.cfg.Grace); known {
		s.cfg.Reporter.Set(p.uid, state, message)
	}
	s.countLocked()
}

// poke tells a goroutine that there is something to do.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (s *Set) countLocked() {
	poke(s.probes)
	captured, draining := 0, 0
	for _, p := range s.pods {
		switch {
		case p.inPlace:
			captured++
		case p.rec.Phase == ledger.Draining:
			draining++
		}
	}
	s.metrics.captured.Set(float64(captured))
	s.metrics.draining.Set(float64(draining))
}

// save writes the ledger and returns when it is on disk.
func (s *Set) save() error {
	s.saveMu.Lock()
	defer s.saveMu.Unlock()
	s.mu.Lock()
	if s.left {
		s.mu.Unlock()
		return nil
	}
	state := ledger.State{Enrolled: sortedKeys(s.enrolled)}
	for _, uid := range sortedKeys(s.pods) {
		if p := s.pods[uid]; p.ns != nil {
			state.Pods = append(state.Pods, p.rec)
		}
	}
	s.mu.Unlock()
	return s.cfg.Ledger.Save(state)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
