package pods

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/cni"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/ledger"
)

// How often a waiting addition looks whether the control plane is back.
const awaitPoll = 200 * time.Millisecond

// nodeNamespaces are those that no pod can have: the agent's own, and that of
// the machine's first process if the agent may look at it.
func nodeNamespaces() (map[netns.ID]string, error) {
	own, err := netns.Own()
	if err != nil {
		return nil, err
	}
	defer own.Close()
	forbidden := map[netns.ID]string{own.ID(): "the node agent's own"}
	host, err := netns.Open("/proc/1/ns/net")
	switch {
	case err == nil:
		forbidden[host.ID()] = "the host's"
		return forbidden, host.Close()
	case errors.Is(err, fs.ErrPermission), errors.Is(err, netns.ErrGone):
		return forbidden, nil
	}
	return nil, err
}

// Add registers a pod that is about to start, and returns when it may: when it is
// captured, or known to be left alone.
func (s *Set) Add(ctx context.Context, a *cni.Add) error {
	ns, err := netns.Open(a.Netns)
	if err != nil {
		return cni.Refuse(fmt.Errorf("pod %s/%s: %w", a.PodNamespace, a.PodName, err))
	}
	if err := s.named(ctx, a); err != nil {
		_ = ns.Close()
		return err
	}
	p, err := s.register(a, ns)
	if err != nil {
		_ = ns.Close()
		return err
	}
	if err := s.save(); err != nil {
		return fmt.Errorf("pod %s/%s: %w", a.PodNamespace, a.PodName, err)
	}
	p.nudge()
	return s.await(ctx, p, a)
}

// register puts the pod into the Set, which owns ns unless there is an error.
func (s *Set) register(a *cni.Add, ns *netns.Namespace) (*pod, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if whose, ok := s.forbidden[ns.ID()]; ok {
		return nil, cni.Refuse(fmt.Errorf("pod %s/%s: netns %s is %s; a pod of the host's network is never captured", a.PodNamespace, a.PodName, a.Netns, whose))
	}
	for uid, other := range s.pods {
		if uid != a.PodUID && other.ns != nil && other.ns.ID() == ns.ID() {
			return nil, cni.Refuse(fmt.Errorf("pod %s/%s: netns %s is that of pod %s/%s (uid %s)", a.PodNamespace, a.PodName, a.Netns, other.rec.Namespace, other.rec.Name, uid))
		}
	}
	p := s.podLocked(a.PodUID)
	phase := ledger.Released
	switch {
	case p.ns == nil:
		p.ns = ns
	case p.ns.ID() == ns.ID():
		// Asked again, perhaps by a path of another name.
		phase = p.rec.Phase
		_ = ns.Close()
	default:
		s.replaceLocked(p, ns)
	}
	if p.wanted == Unknown {
		p.rec.Name, p.rec.Namespace = a.PodName, a.PodNamespace
	}
	p.rec.IPs, p.rec.Netns, p.rec.Phase = a.Addrs, a.Netns, phase
	p.rec.Device, p.rec.Inode = p.ns.ID().Device, p.ns.ID().Inode
	s.changedLocked(p)
	return p, nil
}

// replaceLocked gives a pod whose sandbox was made anew its new namespace. What
// was captured must be again, even if nobody says so now.
func (s *Set) replaceLocked(p *pod, ns *netns.Namespace) {
	s.cfg.Logger.Info("pod has a new network namespace", zap.String("uid", p.uid), zap.Stringer("netns", ns))
	if p.wanted == Unknown && p.rec.Phase == ledger.Captured {
		p.wanted, p.since = Capture, time.Now()
	}
	old := p.ns
	p.ns, p.handed, p.acked, p.proxyErr = ns, nil, netns.ID{}, ""
	p.inPlace, p.stopped, p.err, p.attempts = false, false, "", 0
	_ = old.Close()
}

// await waits until the pod may start, and says what it waited for if it may not.
func (s *Set) await(ctx context.Context, p *pod, a *cni.Add) error {
	began := time.Now()
	poll := time.NewTicker(awaitPoll)
	defer poll.Stop()
	for {
		s.mu.Lock()
		changed := p.changed
		known := s.pods[p.uid] == p && p.ns != nil
		waiting := s.waitingLocked(p, began)
		s.mu.Unlock()
		switch {
		case !known:
			return fmt.Errorf("pod %s/%s: was deleted before it could start", a.PodNamespace, a.PodName)
		case waiting == "":
			return nil
		}
		select {
		case <-changed:
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("pod %s/%s is not started outside the mesh: %s", a.PodNamespace, a.PodName, waiting)
		}
	}
}

// waitingLocked says what a pod that must not start yet waits for; empty if it
// may start.
func (s *Set) waitingLocked(p *pod, began time.Time) string {
	switch {
	case p.rec.Phase == ledger.Captured && p.inPlace, p.wanted == Leave, s.leaving:
		return ""
	case p.err != "":
		return p.err
	case p.wanted == Capture || p.rec.Phase == ledger.Captured:
		switch {
		case p.proxyErr != "":
			return p.proxyErr
		case s.cfg.Proxies.Connections() == 0:
			return "no ztunnel is connected to the node agent"
		}
		return "ztunnel has not opened the pod's listeners"
	}
	_, enrolled := s.enrolled[p.rec.Namespace]
	current, why := s.cfg.ControlPlane.Current()
	switch {
	case enrolled && !current:
		return fmt.Sprintf("namespace %s is enrolled, and the control plane cannot say whether the pod is: %s", p.rec.Namespace, why)
	case !current && time.Since(s.began) < s.cfg.Unenrolled:
		// Just started: what is enrolled by now is known in a moment.
		return "the control plane has not been reached yet: " + why
	case !current:
		return ""
	case !enrolled && time.Since(began) >= s.cfg.Unenrolled:
		return ""
	}
	return "the control plane has not named the pod"
}

// Del forgets a pod whose sandbox is being removed. Its rules end with its
// namespace.
func (s *Set) Del(_ context.Context, d *cni.Del) error {
	s.mu.Lock()
	p, ok := s.pods[s.resolveLocked(d.PodUID)]
	if !ok || p.ns == nil || d.Netns != "" && d.Netns != p.rec.Netns {
		s.mu.Unlock()
		return nil
	}
	s.dropNamespaceLocked(p)
	s.mu.Unlock()
	return s.save()
}
