package wds

import (
	"net/netip"
	"strings"
)

// ServiceNamed finds the service of a hostname, written in lower case without a dot
// at the end, as a workload of a namespace means it: its own namespace's, else the
// canonical one, else any. It gives nil when there is none.
func (s *Store) ServiceNamed(namespace, host string) *Service {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return prefer(namespace, s.byHost[host])
}

// WildcardFor finds the service of the closest wildcard that stands for a hostname.
func (s *Store) WildcardFor(namespace, host string) *Service {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for {
		_, rest, ok := strings.Cut(host, ".")
		if !ok {
			return nil
		}
		if svc := prefer(namespace, s.byHost["*."+rest]); svc != nil {
			return svc
		}
		host = rest
	}
}

func prefer(namespace string, list []*Service) *Service {
	var canonical *Service
	for _, svc := range list {
		if svc.Namespace == namespace {
			return svc
		}
		if svc.Canonical && canonical == nil {
			canonical = svc
		}
	}
	if canonical == nil && len(list) > 0 {
		return list[0]
	}
	return canonical
}

// ServiceAt finds the service that has a virtual address.
func (s *Store) ServiceAt(namespace string, a netip.Addr) *Service {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return prefer(namespace, s.byVIP[a.Unmap()])
}

// Members gives the workloads of a service that DNS may tell of, with the ports that
// they have for those of the service.
func (s *Store) Members(svc *Service) []Member {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := s.endpoints[svc.Key]
	out := make([]Member, 0, len(list))
	for _, e := range list {
		if e.w.Healthy && !e.w.Terminating || svc.AllowUnhealthy {
			out = append(out, Member{e.w, e.membership().Ports})
		}
	}
	return out
}

// Member is a workload of a service.
type Member struct {
	Workload *Workload
	Ports    []Port
}

// Target gives the port of the member for one of the service; 0 for none.
func (m Member) Target(p NamedPort) uint16 {
	for _, own := range m.Ports {
		if own.Service == p.Port && own.Target != 0 && p.Protocol == "tcp" {
			return own.Target
		}
	}
	return p.Target
}

// ServicesOf gives the services that a workload is part of and that are known.
func (s *Store) ServicesOf(w *Workload) []*Service {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []*Service
	for _, m := range w.Services {
		if svc := s.services[m.Service]; svc != nil {
			out = append(out, svc)
		}
	}
	return out
}
