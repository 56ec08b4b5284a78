package wds

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/ambit-mesh/ambit/internal/authz"
	"github.com/ambit-mesh/ambit/internal/identity"
)

// Endpoint is a workload that serves a port of a service.
type Endpoint struct {
	Workload *Workload
	// Port that the workload listens on.
	Port uint16
	// Scopes that the workload shares with whoever asked, from the widest on, of
	// those that the service prefers by: the more, the nearer.
	Scopes int
}

// Address of the endpoint, of the family that is asked for where it has one.
func (e Endpoint) Address(v4 bool) netip.AddrPort {
	a, _ := e.Workload.address(v4)
	return netip.AddrPortFrom(a, e.Port)
}

// Peers are the identities of which the endpoint of svc must prove one.
func (e Endpoint) Peers(svc *Service) []identity.ID {
	ids := []identity.ID{e.Workload.Identity()}
	if svc != nil {
		ids = append(ids, svc.Identities...)
	}
	return ids
}

// Generation counts the changes so far: what was derived from the store is right
// as long as it stays the same.
func (s *Store) Generation() uint64 { return s.generation.Load() }

// Service finds a service by its key, <namespace>/<hostname>; nil when it is not
// known.
func (s *Store) Service(key string) *Service {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.services[key]
}

// EvaluatorOf gives the policies of a namespace together with those that are
// listed by name.
func (s *Store) EvaluatorOf(namespace string, listed []string) *authz.Evaluator {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.policies.For(namespace, listed)
}

// Endpoints gives those that take connections to a port of a service, in a fixed
// order: the nearest to src, which may be nil, first, as far as the service prefers
// those. The error is ErrNoPort, or ErrNoEndpoint for a service that nobody serves
// or that is not known.
func (s *Store) Endpoints(src *Workload, key string, port uint16) (*Service, []Endpoint, error) {
	return s.endpointsOf(src, key, port, func(svc *Service) *Service { return svc })
}

// EndpointsUDP is Endpoints for a UDP port of a service.
func (s *Store) EndpointsUDP(src *Workload, key string, port uint16) (*Service, []Endpoint, error) {
	return s.endpointsOf(src, key, port, (*Service).udp)
}

// endpointsOf gives the endpoints of the service as seen says.
func (s *Store) endpointsOf(src *Workload, key string, port uint16, seen func(*Service) *Service) (*Service, []Endpoint, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	svc := s.services[key]
	if svc == nil {
		return nil, nil, fmt.Errorf("service %s is not known: %w", key, ErrNoEndpoint)
	}
	svc = seen(svc)
	if !svc.HasPort(port) {
		return svc, nil, fmt.Errorf("service %s port %d: %w", key, port, ErrNoPort)
	}
	if svc.External && svc.Passthrough {
		// Where the client wants to go is all there is.
		return svc, []Endpoint{{&Workload{UID: key, Name: svc.Name, Namespace: svc.Namespace, Healthy: true}, port, 0}}, nil
	}
	list := s.endpoints[key]
	out := make([]Endpoint, 0, len(list))
	for _, e := range list {
		at, ok := usable(svc, e, port, true)
		if !ok {
			continue
		}
		n := 0
		if src != nil {
			n = scopesOf(src, svc, e.w)
		}
		if src != nil && svc.Strict && n < len(svc.Scopes) {
			continue
		}
		out = append(out, Endpoint{e.w, at.Port(), n})
	}
	if len(out) == 0 {
		return svc, nil, fmt.Errorf("service %s port %d: %w", key, port, ErrNoEndpoint)
	}
	slices.SortFunc(out, func(a, b Endpoint) int {
		return cmp.Or(cmp.Compare(b.Scopes, a.Scopes), cmp.Compare(a.Workload.UID, b.Workload.UID))
	})
	return svc, out, nil
}

// address gives one of the family that is asked for, else another one.
func (w *Workload) address(v4 bool) (a netip.Addr, ok bool) {
	for _, a := range w.Addresses {
		if a.Is4() == v4 {
			return a, true
		}
	}
	if len(w.Addresses) == 0 {
		return netip.Addr{}, false
	}
	return w.Addresses[len(w.Addresses)-1], true
}

// TargetPort gives the port that the workloads of a service listen on for one of
// its ports: that of any of them where each has its own. Without workloads it is
// the service's port.
func (s *Store) TargetPort(key string, port uint16) uint16 {
	return s.targetPort(key, port, func(svc *Service) *Service { return svc })
}

// TargetPortUDP is TargetPort for a UDP port.
func (s *Store) TargetPortUDP(key string, port uint16) uint16 {
	return s.targetPort(key, port, (*Service).udp)
}

func (s *Store) targetPort(key string, port uint16, seen func(*Service) *Service) uint16 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	svc := s.services[key]
	if svc == nil {
		return port
	}
	svc = seen(svc)
	for _, p := range svc.Ports {
		if p.Service == port && p.Target != 0 {
			return p.Target
		}
	}
	for _, e := range s.endpoints[key] {
		if target, ok := svc.Target(e.membership(), port); ok {
			return target
		}
	}
	return port
}
