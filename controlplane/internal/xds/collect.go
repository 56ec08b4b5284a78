package xds

import (
	"maps"
	"slices"

	"github.com/ambit-mesh/ambit/controlplane/compile"
)

// collector works out what one subscription of a client has to be sent.
type collector struct {
	store  *store
	viewer string
	sub    *subscription

	items   map[string]*state   // by name
	removed map[string]struct{} // names
	// answer: the client waits for a response even if it is empty.
	answer bool
	upTo   uint64
}

// withdrawAfter says which type must be up to date at a client before removals
// of another are sent: a policy goes when no workload names it any more.
func withdrawAfter(typeURL string) string {
	if typeURL == compile.TypeAuthorization {
		return compile.TypeAddress
	}
	return ""
}

// collect gives the next push of a subscription, nil if nothing is to be sent.
// It reports false if the client is so far behind that it has to start again.
// after is the subscription that withdrawals wait for, or nil.
func collect(s *store, viewer string, sub, after *subscription, chunkBytes int) (*push, bool) {
	c := &collector{store: s, viewer: viewer, sub: sub, items: make(map[string]*state), removed: make(map[string]struct{})}
	if sub.fresh {
		c.first()
	} else if !c.later() {
		return nil, false
	}
	c.asked()
	for _, name := range sub.dropped {
		c.remove(name)
	}
	sub.asked, sub.dropped = nil, nil
	c.withdraw(after)
	sub.position = c.upTo
	if len(c.items) == 0 && len(c.removed) == 0 && !c.answer {
		return nil, true
	}
	if sub.held != nil {
		for name := range c.removed {
			delete(sub.held, name)
		}
		for name, st := range c.items {
			sub.held[name] = st.res.Version
		}
	}
	return newPush(sub, c, chunkBytes), true
}

// first compares with what the client says it has.
func (c *collector) first() {
	sub := c.sub
	live, now := c.store.all(sub.typeURL)
	c.upTo, c.answer = now, true
	if !sub.all {
		live = c.onDemand(live)
	}
	ghosts := sub.initial
	for _, st := range live {
		if !st.liveFor(c.viewer) {
			continue
		}
		had, ok := ghosts[st.name]
		delete(ghosts, st.name)
		if ok && had != "" && had == st.res.Version {
			if sub.held != nil {
				sub.held[st.name] = had
			}
			continue
		}
		c.add(st)
	}
	for name := range ghosts {
		c.remove(name)
	}
	if !sub.all {
		// Those that have been looked up need no second answer; unknown ones do.
		sub.asked = slices.DeleteFunc(sub.asked, func(n string) bool { return len(c.visible(n)) > 0 })
	}
	sub.fresh, sub.initial = false, nil
}

// onDemand gives the closure of what is subscribed to, and the node's own
// workloads out of live.
func (c *collector) onDemand(live []*state) []*state {
	wanted := c.store.closure(c.sub.typeURL, slices.Collect(maps.Keys(c.sub.names)))
	seen := make(map[string]struct{}, len(wanted))
	for _, st := range wanted {
		seen[st.name] = struct{}{}
	}
	for _, st := range live {
		if _, ok := seen[st.name]; !ok && runsOn(st.res) == c.viewer {
			wanted = append(wanted, st)
		}
	}
	return wanted
}

// later takes what changed since the last push.
func (c *collector) later() bool {
	changed, now, ok := c.store.since(c.sub.typeURL, c.sub.position)
	if !ok {
		return false
	}
	c.upTo = now
	for _, st := range changed {
		switch {
		case c.sub.all && st.goneFor(c.viewer):
			c.remove(st.name)
		case c.sub.all && st.liveFor(c.viewer):
			c.add(st)
		case c.sub.all:
		case st.gone() || !st.liveFor(c.viewer):
			if _, had := c.sub.held[st.name]; had {
				c.remove(st.name)
			}
		case c.wants(st):
			c.addClosure(st)
		}
	}
	return true
}

// wants says whether a changed resource concerns an on-demand client.
func (c *collector) wants(st *state) bool {
	sub := c.sub
	if _, had := sub.held[st.name]; had || runsOn(st.res) == c.viewer {
		return true
	}
	if _, ok := sub.names[st.name]; ok {
		return true
	}
	for _, a := range st.res.Aliases {
		if _, ok := sub.names[a]; ok {
			return true
		}
	}
	for parent := range parents(st.res) {
		if _, held := sub.held[parent]; held {
			return true
		}
		if _, ok := c.items[parent]; ok {
			return true
		}
	}
	return false
}

// asked answers for names subscribed to since the last push, known or not.
func (c *collector) asked() {
	for _, name := range c.sub.asked {
		c.answer = true
		found := c.visible(name)
		if len(found) == 0 {
			c.remove(name)
			continue
		}
		for _, st := range found {
			c.add(st)
			if !c.sub.all {
				c.addClosure(st)
			}
		}
	}
}

func (c *collector) visible(name string) []*state {
	return slices.DeleteFunc(c.store.lookup(c.sub.typeURL, name), func(st *state) bool { return !st.liveFor(c.viewer) })
}

// addClosure adds st and what is related to it that the client does not have.
func (c *collector) addClosure(st *state) {
	c.add(st)
	for _, rel := range c.store.closure(c.sub.typeURL, related(st.res)) {
		if _, had := c.sub.held[rel.name]; !had && rel.liveFor(c.viewer) {
			c.add(rel)
		}
	}
}

func (c *collector) add(st *state) {
	delete(c.removed, st.name)
	c.items[st.name] = st
}

func (c *collector) remove(name string) {
	if _, ok := c.items[name]; !ok {
		c.removed[name] = struct{}{}
	}
}

// withdraw holds removals back until the client has everything that no longer
// refers to them.
func (c *collector) withdraw(after *subscription) {
	sub := c.sub
	if after != nil {
		for name := range c.removed {
			if _, asked := sub.names[name]; asked {
				continue
			}
			sub.withdrawn[name] = c.upTo
			delete(c.removed, name)
		}
	}
	for name, version := range sub.withdrawn {
		_, again := c.items[name]
		if again || after == nil || after.acked >= version {
			delete(sub.withdrawn, name)
			if !again {
				c.removed[name] = struct{}{}
			}
		}
	}
}
