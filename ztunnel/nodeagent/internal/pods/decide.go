package pods

import "github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/ledger"

// Wanted is what the control plane says about a pod.
type Wanted int

// What the control plane can say. Unknown also stands for a control plane that
// no longer names the pod: it is being deleted, and stays as it is until its
// namespace is gone.
const (
	Unknown Wanted = iota
	Capture
	Leave
)

// String names w in dumps and logs.
func (w Wanted) String() string { return [...]string{"unknown", "capture", "leave"}[w] }

// facts are what a decision depends on.
type facts struct {
	wanted Wanted
	phase  ledger.Phase
	// here says that the pod's network namespace is known.
	here bool
	// handed says that ztunnel's set has the pod, as it is now; acked that a
	// ztunnel has opened its listeners.
	handed, acked bool
}

// action is one step towards the wanted state.
type action int

const (
	// rest: nothing is to be done.
	rest action = iota
	// hand the pod to ztunnel.
	hand
	// capture puts the rules in place; for a captured pod, it mends them.
	capture
	// stop takes the redirects away.
	stop
	// drain waits for connections to end, and then removes the rules.
	drain
	// withdraw takes the pod from ztunnel's set.
	withdraw
)

func decide(f facts) action {
	keep := f.wanted == Capture || f.wanted == Unknown && f.phase == ledger.Captured
	switch {
	case !f.here:
		return rest
	case keep && !f.handed:
		return hand
	case keep && (f.acked || f.phase == ledger.Captured):
		// A captured pod's rules are mended whether or not ztunnel is there:
		// without them its traffic would go in the clear.
		return capture
	case keep:
		return rest
	case f.phase == ledger.Captured:
		return stop
	case f.phase == ledger.Draining:
		return drain
	case f.handed:
		return withdraw
	}
	return rest
}
