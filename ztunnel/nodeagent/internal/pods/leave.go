package pods

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/ledger"
)

// Leave releases every pod, as if the control plane had said so, and returns when
// that is done. Connections have the time of Config.Leave. From now on pods start
// untouched.
func (s *Set) Leave(ctx context.Context) error {
	s.mu.Lock()
	s.leaving = true
	for _, p := range s.pods {
		if p.rec.Phase == ledger.Draining && p.stopped {
			p.drainUntil = minTime(p.drainUntil, time.Now().Add(s.cfg.Leave))
		}
		s.changedLocked(p)
		p.nudge()
	}
	s.mu.Unlock()
	poll := time.NewTicker(awaitPoll)
	defer poll.Stop()
	for {
		left := s.notReleased()
		if left == "" {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not every pod is released: %s", left)
		case <-poll.C:
		}
	}
	s.saveMu.Lock()
	defer s.saveMu.Unlock()
	s.probeMu.Lock()
	defer s.probeMu.Unlock()
	s.mu.Lock()
	s.left = true
	s.mu.Unlock()
	var err error
	if s.cfg.Prober != nil {
		err = s.cfg.Prober.Remove()
	}
	return errors.Join(err, s.cfg.Ledger.Remove())
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// notReleased names a pod that is not released yet.
func (s *Set) notReleased() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pods {
		if p.ns != nil && (p.rec.Phase != ledger.Released || p.handed != nil) {
			return fmt.Sprintf("pod %s/%s is %s (%s)", p.rec.Namespace, p.rec.Name, p.rec.Phase, p.err)
		}
	}
	return ""
}

// Check returns nil if the pod is as it should be.
func (s *Set) Check(uid string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.pods[s.resolveLocked(uid)]
	if !ok || p.ns == nil {
		return fmt.Errorf("pod %s: the node agent does not know its network namespace", uid)
	}
	if waiting := s.waitingLocked(p, time.Time{}); waiting != "" {
		return fmt.Errorf("pod %s/%s: %s", p.rec.Namespace, p.rec.Name, waiting)
	}
	return nil
}
