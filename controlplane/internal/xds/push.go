package xds

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// perItem is about what an element of a response takes besides its contents.
const perItem = 48

// push is one answer on its way to a client, in as many responses as its size
// asks for.
type push struct {
	sub        *subscription
	upTo       uint64
	items      []*state // not yet sent
	removed    []string // not yet sent
	chunkBytes int

	started time.Time
	// done: all responses have been made.
	done bool
	// waiting are the nonces sent and not yet answered, with the first of the
	// names in each response.
	waiting map[string][]string
	refused bool
}

func newPush(sub *subscription, c *collector, chunkBytes int) *push {
	p := &push{
		sub: sub, upTo: c.upTo, chunkBytes: chunkBytes, waiting: make(map[string][]string),
		items:   slices.Collect(maps.Values(c.items)),
		removed: slices.Sorted(maps.Keys(c.removed)),
	}
	slices.SortFunc(p.items, func(a, b *state) int {
		return cmp.Or(cmp.Compare(rank(a.res), rank(b.res)), strings.Compare(a.name, b.name))
	})
	return p
}

// next gives the following response and the number of names in it. The first
// may be empty.
func (p *push) next() (*discovery.DeltaDiscoveryResponse, int) {
	resp := &discovery.DeltaDiscoveryResponse{TypeUrl: p.sub.typeURL}
	size, n := 0, 0
	for n < len(p.items) && size < p.chunkBytes {
		w := p.items[n].wire
		if p.sub.held != nil {
			w = withAliases(p.items[n])
		}
		resp.Resources = append(resp.Resources, w)
		size += perItem + 2*len(w.Name) + len(w.Resource.Value)
		n++
	}
	p.items = p.items[n:]
	r := 0
	for r < len(p.removed) && size < p.chunkBytes {
		size += perItem + len(p.removed[r])
		r++
	}
	resp.RemovedResources, p.removed = p.removed[:r:r], p.removed[r:]
	p.done = len(p.items) == 0 && len(p.removed) == 0
	return resp, n + r
}

// withAliases is for clients that ask by address. Wildcard clients have no use
// for the aliases, so they do not pay for them.
func withAliases(st *state) *discovery.Resource {
	return &discovery.Resource{Name: st.wire.Name, Version: st.wire.Version, Aliases: st.res.Aliases, Resource: st.wire.Resource}
}

// finished says whether every response has been answered.
func (p *push) finished() bool { return p.done && len(p.waiting) == 0 }

// someNames gives the first names of a response, for a log.
func someNames(resp *discovery.DeltaDiscoveryResponse) []string {
	const some = 10
	var names []string
	for _, r := range resp.Resources[:min(some, len(resp.Resources))] {
		names = append(names, r.Name)
	}
	return append(names, resp.RemovedResources[:min(some-len(names), len(resp.RemovedResources))]...)
}
