package pods

import (
	"context"
	"net/netip"
	"time"

	nodepb "github.com/ambit-mesh/ambit/apis/node"
	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/zds"
	rules "github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/capture"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/ledger"
)

// pod is what is known of one pod. Its goroutine alone acts on the namespace.
type pod struct {
	uid  string
	wake chan struct{} // capacity 1
	gone chan struct{} // closed when the pod is no longer in the Set

	// The rest is guarded by Set.mu.

	rec ledger.Pod
	ns  *netns.Namespace // nil while the CNI plugin has not named the pod

	wanted Wanted
	reason string       // of the control plane, why it is left alone
	addrs  []netip.Addr // of the control plane
	since  time.Time    // of wanted

	handed   *handover // nil while ztunnel's set does not have the pod
	acked    netns.ID  // for which a ztunnel has opened listeners
	proxyErr string    // why it has not

	// inPlace says that the pod's rules were seen in place and its redirects have
	// not been taken away since.
	inPlace bool
	// stopped says that a draining pod's redirects were taken away, and
	// drainUntil when its connections have had their time.
	stopped    bool
	drainUntil time.Time
	asked      rules.Options // of the last capture

	err      string // of the last step; empty if it went well
	attempts int    // failures in a row

	changed chan struct{} // closed at each change, and replaced
}

// handover is what ztunnel was given.
type handover struct {
	info zds.Workload
	ns   netns.ID
}

func newPod(uid string) *pod {
	return &pod{
		uid: uid, rec: ledger.Pod{UID: uid, Phase: ledger.Released},
		wake: make(chan struct{}, 1), gone: make(chan struct{}), changed: make(chan struct{}),
	}
}

// nudge makes the pod's goroutine look again.
func (p *pod) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *pod) workload() zds.Workload {
	return zds.Workload{Name: p.rec.Name, Namespace: p.rec.Namespace, ServiceAccount: p.rec.ServiceAccount}
}

func (p *pod) facts() facts {
	f := facts{wanted: p.wanted, phase: p.rec.Phase, here: p.ns != nil}
	if f.here {
		f.handed = p.handed != nil && *p.handed == handover{p.workload(), p.ns.ID()}
		f.acked = p.acked == p.ns.ID()
	}
	return f
}

// state is what the control plane is told; known is false if nothing is.
func (p *pod) state(grace time.Duration) (state nodepb.PodState_State, message string, known bool) {
	switch {
	case p.ns == nil:
		if p.wanted != Capture || time.Since(p.since) < grace {
			return 0, "", false
		}
		return nodepb.PodState_FAILED, "the pod's network namespace is not known: no CNI plugin has named it, and none on this node is provably the pod's; restart the pod", true
	case p.inPlace:
		// A failed repair does not make the pod one that peers reach in the clear.
		return nodepb.PodState_CAPTURED, p.err, true
	case p.err != "":
		return nodepb.PodState_FAILED, p.err, true
	case p.wanted == Capture && p.proxyErr != "":
		return nodepb.PodState_FAILED, p.proxyErr, true
	}
	return nodepb.PodState_RELEASED, "", true
}

// loop brings the pod towards its wanted state until it is gone or ctx ends.
func (s *Set) loop(ctx context.Context, p *pod) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.gone:
			return
		case <-p.wake:
		case <-timer.C:
		}
		timer.Reset(s.reconcile(p))
	}
}
