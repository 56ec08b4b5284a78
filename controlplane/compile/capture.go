package compile

import (
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// phase is where a pod is between being left alone and being reached by tunnel.
// The package comment has the picture.
type phase int

const (
	plain phase = iota
	enrolling
	captured
	releasing
	released
)

// capture is the state of one pod.
type capture struct {
	phase phase
	// reported is the last word of the pod's agent.
	reported bool
	// message is why the agent failed, if it did.
	message string
	// epoch counts releases, so that a late confirmation of an earlier one is
	// told apart.
	epoch uint64
}

// tunnel says whether peers are to use HBONE.
func (c *capture) tunnel() bool { return c.phase == captured }

// wanted says what the agent is told.
func (c *capture) wanted() bool {
	return c.phase == enrolling || c.phase == captured || c.phase == releasing
}

// keep says whether a successor of this control plane must know of the pod.
func (c *capture) keep() bool { return c.phase == captured || c.phase == releasing }

// settle moves on as far as the label and the last report allow.
func (c *capture) settle(wanted bool) {
	switch {
	case c.phase == plain && c.reported && !wanted:
		// The agent was told to leave the pod alone and has yet to do so.
		c.phase = released
	case c.phase == plain && wanted:
		c.phase = enrolling
	case c.phase == enrolling && !wanted:
		// Nobody was told of a tunnel, so that nobody has to be waited for.
		c.phase = plain
	case c.phase == captured && !wanted:
		c.phase = releasing
		c.epoch++
	case c.phase == releasing && wanted:
		c.phase = enrolling
	case c.phase == released && !c.reported:
		// Only now may it be wanted again: a report of before could be taken for
		// one of after.
		c.phase = plain
		if wanted {
			c.phase = enrolling
		}
	}
	if c.phase == enrolling && c.reported {
		c.phase = captured
	}
}

// confirm ends a release that every ztunnel knows of.
func (c *capture) confirm(epoch uint64) {
	if c.phase == releasing && c.epoch == epoch {
		c.phase = released
	}
}

// captures holds the capture states of all pods by uid.
type captures struct {
	pods map[types.UID]*capture
	// restored is what a predecessor knew, by uid: the node. It is for the batch
	// that brings it, which has all pods that can still be meant.
	restored map[types.UID]string
	// early has, by node, pods that were reported captured and are not known
	// yet: an agent learns of a new pod from the container runtime, which can be
	// first.
	early map[string]map[types.UID]struct{}
	// changed says that the outcome of keep changed for some pod.
	changed bool
}

// maxEarly bounds what one node's agent may say of unknown pods.
const maxEarly = 4096

func newCaptures() captures {
	return captures{
		pods:     make(map[types.UID]*capture),
		restored: make(map[types.UID]string),
		early:    make(map[string]map[types.UID]struct{}),
	}
}

// restore takes over what a predecessor knew.
func (s *captures) restore(pods []CapturedPod) {
	for _, p := range pods {
		s.restored[p.UID] = p.Node
		s.changed = true
	}
}

// reportEarly remembers a report on an unknown pod.
func (s *captures) reportEarly(node string, p PodCapture) {
	switch {
	case !p.Captured:
		delete(s.early[node], p.UID)
	case s.early[node] == nil:
		s.early[node] = map[types.UID]struct{}{p.UID: {}}
	case len(s.early[node]) < maxEarly:
		s.early[node][p.UID] = struct{}{}
	}
}

// of gives the state of a pod that is bound to a node, making it if needed.
func (s *captures) of(uid types.UID, node string) *capture {
	if c := s.pods[uid]; c != nil {
		return c
	}
	c := &capture{}
	if before, ok := s.restored[uid]; ok && before == node {
		c.phase, c.reported = captured, true
	}
	if _, ok := s.early[node][uid]; ok {
		delete(s.early[node], uid)
		c.reported = true
	}
	s.pods[uid] = c
	return c
}

// drop forgets a pod that is gone.
func (s *captures) drop(uid types.UID) {
	if c := s.pods[uid]; c != nil {
		s.changed = s.changed || c.keep()
		delete(s.pods, uid)
	}
}

// applyCaptures takes in what was restored, reported and confirmed, and marks
// the pods concerned.
func (c *Compiler) applyCaptures(in Input, d *graph.Dirty) {
	c.captures.restore(in.Restored)
	for _, r := range in.Reports {
		c.applyReport(r, d)
	}
	for _, r := range in.Released {
		if state := c.captures.pods[r.UID]; state != nil {
			before := state.keep()
			state.confirm(r.Epoch)
			c.captures.changed = c.captures.changed || before != state.keep()
			c.markPod(r.UID, d)
		}
	}
}

func (c *Compiler) applyReport(r CaptureReport, d *graph.Dirty) {
	named := make(map[types.UID]bool, len(r.Pods))
	if r.Snapshot {
		delete(c.captures.early, r.Node)
	}
	for _, p := range r.Pods {
		named[p.UID] = true
		c.applyPodCapture(r.Node, p, d)
	}
	if !r.Snapshot {
		return
	}
	for _, n := range c.graph.PodsOn(r.Node) {
		item, _ := c.graph.Pod(n)
		if uid := item.Object.UID; uid != "" && !named[uid] {
			c.applyPodCapture(r.Node, PodCapture{UID: uid}, d)
		}
	}
}

func (c *Compiler) applyPodCapture(node string, p PodCapture, d *graph.Dirty) {
	n, ok := c.graph.PodByUID(p.UID)
	if !ok {
		c.captures.reportEarly(node, p)
		return
	}
	item, _ := c.graph.Pod(n)
	if item.Object.Spec.NodeName != node || graph.Finished(item.Object) {
		return
	}
	state := c.captures.of(p.UID, node)
	if state.reported != p.Captured || state.message != p.Message {
		state.reported, state.message = p.Captured, p.Message
		d.Pods[n] = struct{}{}
	}
}

func (c *Compiler) markPod(uid types.UID, d *graph.Dirty) {
	if n, ok := c.graph.PodByUID(uid); ok {
		d.Pods[n] = struct{}{}
	}
}
