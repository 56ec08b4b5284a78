package wds

import (
	"slices"
	"time"

	"github.com/ambit-mesh/ambit/internal/identity"
)

// Linger is for how long the waypoint of a service or a workload is believed after
// it was unbound. It serves on for 5 s those who have not heard of that yet, and may
// have heard of it itself later than this node.
const Linger = 10 * time.Second

// former is who a waypoint was that is bound no more.
type former struct {
	ids   []identity.ID
	until time.Time
}

func (f *former) is(peer identity.ID) bool {
	return f != nil && slices.Contains(f.ids, peer) && time.Now().Before(f.until)
}

// unbound gives who is to be believed after a waypoint made place for another or
// for none; before is who was then already.
func (s *Store) unbound(was, is *Gateway, before *former) *former {
	if was == nil || was.Refusal != "" || was.same(is) {
		return before
	}
	var ids []identity.ID
	add := func(w *Workload) {
		if w.HBONE && !slices.Contains(ids, w.Identity()) {
			ids = append(ids, w.Identity())
		}
	}
	for _, key := range s.gatewayServices(was) {
		for _, e := range s.endpoints[key] {
			add(e.w)
		}
	}
	if w := s.byAddr[was.Address]; w != nil && was.Address.IsValid() {
		add(w)
	}
	if len(ids) == 0 {
		return before
	}
	return &former{ids, time.Now().Add(Linger)}
}

// gatewayServices gives the keys of the services that a gateway may be.
func (s *Store) gatewayServices(g *Gateway) []string {
	if !g.Address.IsValid() {
		return []string{g.Service}
	}
	var keys []string
	for _, svc := range s.byVIP[g.Address] {
		keys = append(keys, svc.Key)
	}
	return keys
}
