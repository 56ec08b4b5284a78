package pods

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/cni"
)

// How often pods are looked for that were not found at once: their processes may
// be about to start.
const (
	findMin = 250 * time.Millisecond
	findMax = 10 * time.Second
)

// find looks for the namespaces of wanted pods that no plugin has named, until ctx
// ends.
func (s *Set) find(ctx context.Context) {
	wait := findMin
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.seek:
			wait = findMin
		case <-timer.C:
		}
		if s.findOnce() > 0 {
			timer.Reset(wait)
			wait = min(wait*2, findMax)
		} else {
			timer.Reset(findMax)
		}
	}
}

// findOnce gives how many are still missing.
func (s *Set) findOnce() int {
	s.mu.Lock()
	missing := make(map[string][]netip.Addr)
	for uid, p := range s.pods {
		if p.ns == nil && p.wanted == Capture && !s.leaving && len(p.addrs) > 0 {
			missing[uid] = slices.Clone(p.addrs)
		}
	}
	s.mu.Unlock()
	if len(missing) == 0 {
		return 0
	}
	found := s.cfg.Finder.Find(missing, func(id netns.ID) bool { _, own := s.forbidden[id]; return own })
	for uid, ns := range found {
		s.adopt(uid, missing[uid], ns)
	}
	return len(missing) - len(found)
}

// adopt takes in the namespace of a pod that runs already.
func (s *Set) adopt(uid string, addrs []netip.Addr, ns *netns.Namespace) {
	s.mu.Lock()
	p, ok := s.pods[uid]
	if !ok || p.ns != nil {
		// Deleted meanwhile, or announced.
		s.mu.Unlock()
		_ = ns.Close()
		return
	}
	a := &cni.Add{Netns: ns.Path(), PodName: p.rec.Name, PodNamespace: p.rec.Namespace, PodUID: uid, Addrs: addrs}
	s.mu.Unlock()
	log := s.cfg.Logger.With(zap.String("pod", a.PodNamespace+"/"+a.PodName), zap.String("uid", uid), zap.String("netns", a.Netns))
	p, err := s.register(a, ns)
	if err != nil {
		_ = ns.Close()
		log.Error("network namespace of a running pod cannot be used", zap.Error(err))
		return
	}
	log.Info("network namespace of a running pod was found")
	if err := s.save(); err != nil {
		log.Error("state is not saved; trying again with the next change", zap.Error(err))
	}
	p.nudge()
}

// probe keeps the addresses up to date to which the node's probes are let through,
// until ctx ends.
func (s *Set) probe(ctx context.Context) {
	ticker := time.NewTicker(s.cfg.Repair)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.probes:
		case <-ticker.C:
		}
		if err := s.syncProbes(); err != nil {
			s.metrics.failures.WithLabelValues("probes").Inc()
			s.cfg.Logger.Error("the node's health probes may not get through to captured pods", zap.Error(err))
		}
	}
}

func (s *Set) syncProbes() error {
	s.probeMu.Lock()
	defer s.probeMu.Unlock()
	s.mu.Lock()
	if s.left {
		s.mu.Unlock()
		return nil
	}
	var addrs []netip.Addr
	for _, p := range s.pods {
		// Draining pods let everything through, and from the probe address too.
		if p.ns != nil && p.inPlace {
			addrs = append(addrs, p.rec.IPs...)
			addrs = append(addrs, p.addrs...)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(addrs, netip.Addr.Compare)
	return s.cfg.Prober.Sync(slices.Compact(addrs))
}
