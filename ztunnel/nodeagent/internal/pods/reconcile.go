package pods

import (
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/netns"
	rules "github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/capture"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/ledger"
)

// step is what an action says about what comes next.
type step struct {
	// again asks for the next decision at once, otherwise after the delay.
	again bool
	delay time.Duration
}

// reconcile takes steps until there is nothing to do now, and tells when to look
// again.
func (s *Set) reconcile(p *pod) time.Duration {
	s.noticeGone(p)
	for {
		s.mu.Lock()
		f := p.facts()
		if s.leaving {
			f.wanted = Leave
		}
		act, ns := decide(f), p.ns
		s.mu.Unlock()
		next, err := s.act(p, ns, act)
		if err != nil {
			return s.failed(p, ns, act, err)
		}
		s.succeeded(p)
		if !next.again {
			return next.delay
		}
		select {
		case <-p.gone:
			return s.cfg.Repair
		default:
		}
	}
}

func (s *Set) act(p *pod, ns *netns.Namespace, a action) (step, error) {
	switch a {
	case hand:
		return s.hand(p, ns)
	case capture:
		return s.capture(p, ns)
	case stop:
		return step{again: true}, s.setPhase(p, ns, ledger.Draining)
	case drain:
		return s.drain(p, ns)
	case withdraw:
		s.withdraw(p)
		return step{again: true}, nil
	default:
		return step{delay: s.restFor(p)}, nil
	}
}

// restFor is how long a pod without work is left alone.
func (s *Set) restFor(p *pod) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.ns == nil && p.wanted == Capture {
		if left := s.cfg.Grace - time.Since(p.since); left > 0 {
			return min(left, s.cfg.Repair)
		}
	}
	return s.cfg.Repair
}

// noticeGone forgets the namespace of a pod whose path leads there no more.
func (s *Set) noticeGone(p *pod) {
	s.mu.Lock()
	ns, path := p.ns, p.rec.Netns
	s.mu.Unlock()
	if ns == nil {
		return
	}
	now, err := netns.Open(path)
	switch {
	case err == nil:
		same := now.ID() == ns.ID()
		_ = now.Close()
		if same {
			return
		}
	case !errors.Is(err, netns.ErrGone) && !errors.Is(err, netns.ErrNotNamespace):
		s.cfg.Logger.Warn("cannot look at a pod's network namespace", zap.String("uid", p.uid), zap.Error(err))
		return
	}
	s.mu.Lock()
	if p.ns != ns {
		s.mu.Unlock()
		return
	}
	s.cfg.Logger.Info("pod is gone: its network namespace was removed", zap.String("uid", p.uid), zap.String("netns", path))
	s.dropNamespaceLocked(p)
	s.mu.Unlock()
	if err := s.save(); err != nil {
		s.cfg.Logger.Error("state is not saved; trying again with the next change", zap.Error(err))
	}
}

func (s *Set) hand(p *pod, ns *netns.Namespace) (step, error) {
	// The identity that ztunnel is told must survive a restart with the pod.
	if err := s.save(); err != nil {
		return step{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.ns != ns {
		return step{again: true}, nil
	}
	return step{again: true}, s.handLocked(p)
}

func (s *Set) handLocked(p *pod) error {
	w := p.workload()
	if err := s.cfg.Proxies.Set(p.uid, w, p.ns); err != nil {
		return err
	}
	p.handed = &handover{w, p.ns.ID()}
	return nil
}

func (s *Set) withdraw(p *pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.withdrawLocked(p)
}

func (s *Set) withdrawLocked(p *pod) {
	if p.handed != nil {
		s.cfg.Proxies.Remove(p.uid)
	}
	p.handed, p.acked, p.proxyErr = nil, netns.ID{}, ""
}

// capture puts the rules in place. That the pod is captured is on disk before
// its first rule is set.
func (s *Set) capture(p *pod, ns *netns.Namespace) (step, error) {
	if err := s.setPhase(p, ns, ledger.Captured); err != nil {
		return step{}, err
	}
	s.mu.Lock()
	o := rules.Options{DNSLeftAlone: p.rec.DNSLeftAlone || s.cfg.DNSLeftAlone}
	asked := p.asked
	p.asked = o
	s.mu.Unlock()
	s.kernel <- struct{}{}
	changed, err := s.cfg.Capturer.Capture(ns, o)
	<-s.kernel
	if err != nil {
		return step{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.ns != ns {
		return step{again: true}, nil
	}
	log := s.cfg.Logger.With(zap.String("pod", p.rec.Namespace+"/"+p.rec.Name), zap.String("uid", p.uid))
	switch {
	case !p.inPlace:
		log.Info("pod is captured")
	case asked != o:
		log.Info("rules of a captured pod were changed")
	case len(changed) > 0:
		s.metrics.repairs.Inc()
		log.Warn("rules of a captured pod were damaged and have been put right", zap.Strings("damage", changed))
	}
	p.inPlace, p.stopped = true, false
	return step{delay: s.cfg.Repair}, nil
}

// drain takes the redirects away, waits for the pod's connections to end, lets
// ztunnel end the idle tunnels, and removes the rules.
func (s *Set) drain(p *pod, ns *netns.Namespace) (step, error) {
	s.kernel <- struct{}{}
	defer func() { <-s.kernel }()
	wait := step{delay: s.cfg.DrainPoll}
	s.mu.Lock()
	stopped, until, handed := p.stopped, p.drainUntil, p.handed != nil
	s.mu.Unlock()
	if !stopped {
		if err := s.cfg.Capturer.StopNew(ns); err != nil {
			return step{}, err
		}
		s.mu.Lock()
		p.stopped, p.inPlace, p.drainUntil = true, false, time.Now().Add(s.drainBoundLocked())
		s.mu.Unlock()
		// What was redirected a moment ago is still to be accepted.
		return wait, nil
	}
	n, err := s.cfg.Capturer.Connections(ns)
	if err != nil {
		return step{}, err
	}
	due := time.Now().After(until)
	if n.Live > 0 && !due {
		return wait, nil
	}
	if handed {
		s.withdraw(p)
		return wait, nil
	}
	if n.Live+n.Tunnels > 0 && !due {
		return wait, nil
	}
	if err := s.cfg.Capturer.Release(ns); err != nil {
		return step{}, err
	}
	log := s.cfg.Logger.With(zap.String("uid", p.uid))
	if n.Live+n.Tunnels > 0 {
		log.Warn("pod is released; connections that were open for longer than the drain time are cut", zap.Int("connections", n.Live+n.Tunnels))
	} else {
		log.Info("pod is released")
	}
	return step{again: true}, s.setPhase(p, ns, ledger.Released)
}

func (s *Set) drainBoundLocked() time.Duration {
	if s.leaving {
		return min(s.cfg.DrainBound, s.cfg.Leave)
	}
	return s.cfg.DrainBound
}

// setPhase records how far a pod is, and returns when that is on disk.
func (s *Set) setPhase(p *pod, ns *netns.Namespace, phase ledger.Phase) error {
	s.mu.Lock()
	old := p.rec.Phase
	if p.ns != ns || old == phase {
		s.mu.Unlock()
		return nil
	}
	p.rec.Phase = phase
	p.stopped = false
	s.mu.Unlock()
	err := s.save()
	if err != nil {
		s.mu.Lock()
		if p.ns == ns {
			p.rec.Phase = old
		}
		s.mu.Unlock()
	}
	return err
}

func (s *Set) succeeded(p *pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.err, p.attempts = "", 0
	s.changedLocked(p)
}

// failed records an error and tells when to try again.
func (s *Set) failed(p *pod, ns *netns.Namespace, a action, err error) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.ns != ns {
		return 0 // the namespace was replaced or dropped meanwhile
	}
	name := [...]string{"rest", "hand", "capture", "stop", "drain", "withdraw"}[a]
	s.metrics.failures.WithLabelValues(name).Inc()
	wait := min(s.cfg.RetryMin<<min(p.attempts, 16), s.cfg.RetryMax)
	p.attempts++
	p.err = fmt.Sprintf("%s: %v", name, err)
	s.cfg.Logger.Error("pod is not in its wanted state", zap.String("pod", p.rec.Namespace+"/"+p.rec.Name), zap.String("uid", p.uid),
		zap.String("step", name), zap.Stringer("wanted", p.wanted), zap.Duration("retry_in", wait), zap.Error(err))
	s.changedLocked(p)
	return wait
}
