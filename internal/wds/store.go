package wds

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gaissmai/bart"

	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/internal/authz"
	"github.com/ambit-mesh/ambit/internal/identity"
)

// Store is the whole of it. Safe for concurrent use.
type Store struct {
	mu        sync.RWMutex
	workloads map[string]*Workload           // by uid; guarded by mu
	byAddr    map[netip.Addr]*Workload       // guarded by mu
	byName    map[name]*Workload             // guarded by mu
	services  map[string]*Service            // by key; guarded by mu
	byVIP     map[netip.Addr][]*Service      // guarded by mu
	byHost    map[string][]*Service          // by hostname, wildcards too; guarded by mu
	blocks    *bart.Table[[]*Service]        // guarded by mu
	endpoints map[string][]endpoint          // by service key; guarded by mu
	policies  *authz.Set                     // guarded by mu
	local     map[string]map[identity.ID]int // workloads whose tunnels the node's proxy serves, by node and identity; guarded by mu
	changed   chan struct{}                  // closed and replaced at each change; guarded by mu

	generation atomic.Uint64 // counts changes
}

type name struct{ namespace, name string }

// endpoint is a workload as one of those of a service.
type endpoint struct {
	w  *Workload
	of int // index of the service in w.Services
}

func (e endpoint) membership() *Membership { return &e.w.Services[e.of] }

// New makes an empty store.
func New() *Store {
	return &Store{
		workloads: make(map[string]*Workload), byAddr: make(map[netip.Addr]*Workload), byName: make(map[name]*Workload),
		services: make(map[string]*Service), byVIP: make(map[netip.Addr][]*Service),
		byHost: make(map[string][]*Service), blocks: new(bart.Table[[]*Service]),
		endpoints: make(map[string][]endpoint), local: make(map[string]map[identity.ID]int),
		policies: authz.NewSet(), changed: make(chan struct{}),
	}
}

// Change is a batch of updates that becomes visible at once.
type Change struct {
	s *Store
}

// Update runs f, which makes the changes, while nobody reads.
func (s *Store) Update(f func(Change)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(Change{s})
	s.generation.Add(1)
	close(s.changed)
	s.changed = make(chan struct{})
}

// Changed gives a channel that is closed at the next change.
func (s *Store) Changed() <-chan struct{} {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.changed
}

// Put stores an address resource under its name.
func (c Change) Put(resource string, a *workloadpb.Address) error {
	switch t := a.GetType().(type) {
	case *workloadpb.Address_Workload:
		w, err := workloadFrom(t.Workload)
		if err != nil {
			return err
		}
		if w.UID != resource {
			return fmt.Errorf("workload %s: under the resource name %s", w.UID, resource)
		}
		w.UID = resource // whoever subscribed has it by that name: one string in memory, and not two
		if n := len(w.UID) - len(w.Name); n > 0 && w.UID[n:] == w.Name {
			w.Name = w.UID[n:]
		}
		c.removeService(resource)
		c.putWorkload(w)
	case *workloadpb.Address_Service:
		svc, err := serviceFrom(t.Service)
		if err != nil {
			return err
		}
		if svc.Key != resource {
			return fmt.Errorf("service %s: under the resource name %s", svc.Key, resource)
		}
		old := c.s.services[svc.Key]
		svc.boundSince(old)
		if old != nil {
			svc.former = c.s.unbound(old.Waypoint, svc.Waypoint, old.former)
		}
		c.Remove(resource)
		c.s.services[svc.Key] = svc
		host := strings.ToLower(svc.Hostname)
		c.s.byHost[host] = append(c.s.byHost[host], svc)
		for _, vip := range svc.VIPs {
			c.s.byVIP[vip] = append(c.s.byVIP[vip], svc)
		}
		for _, b := range svc.Blocks {
			list, _ := c.s.blocks.Get(b)
			c.s.blocks.Insert(b, append(slices.Clone(list), svc))
		}
	default:
		return fmt.Errorf("address %s: neither workload nor service", resource)
	}
	return nil
}

// Remove forgets the workload or service of that resource name.
func (c Change) Remove(resource string) {
	if w := c.s.workloads[resource]; w != nil {
		c.removeWorkload(w)
	}
	c.removeService(resource)
}

func (c Change) putWorkload(w *Workload) {
	s := c.s
	if old := s.workloads[w.UID]; old != nil {
		w.load, w.former = old.load, s.unbound(old.Waypoint, w.Waypoint, old.former)
		c.removeWorkload(old)
	} else {
		w.load = new(load)
	}
	s.workloads[w.UID] = w
	s.byName[name{w.Namespace, w.Name}] = w
	if !w.HostNetwork { // that address is the node's and identifies nobody
		for _, a := range w.Addresses {
			s.byAddr[a] = w
		}
	}
	if w.served() {
		if s.local[w.Node] == nil {
			s.local[w.Node] = make(map[identity.ID]int)
		}
		s.local[w.Node][w.Identity()]++
	}
	w.places = make([]int, len(w.Services))
	for i, m := range w.Services {
		w.places[i] = len(s.endpoints[m.Service])
		s.endpoints[m.Service] = append(s.endpoints[m.Service], endpoint{w, i})
	}
}

func (c Change) removeWorkload(w *Workload) {
	s := c.s
	delete(s.workloads, w.UID)
	if s.byName[name{w.Namespace, w.Name}] == w {
		delete(s.byName, name{w.Namespace, w.Name})
	}
	if w.served() {
		ids := s.local[w.Node]
		if ids[w.Identity()]--; ids[w.Identity()] == 0 {
			delete(ids, w.Identity())
		}
		if len(ids) == 0 {
			delete(s.local, w.Node)
		}
	}
	for _, a := range w.Addresses {
		// An address may have gone to another pod before we hear of this one's end.
		if s.byAddr[a] == w {
			delete(s.byAddr, a)
		}
	}
	for i, m := range w.Services {
		list := s.endpoints[m.Service]
		at, last := w.places[i], len(list)-1
		moved := list[last]
		list[at], moved.w.places[moved.of] = moved, at
		list[last] = endpoint{}
		if last == 0 {
			delete(s.endpoints, m.Service)
		} else {
			s.endpoints[m.Service] = list[:last]
		}
	}
}

func (c Change) removeService(key string) {
	svc := c.s.services[key]
	if svc == nil {
		return
	}
	delete(c.s.services, key)
	for _, vip := range svc.VIPs {
		without(c.s.byVIP, vip, svc)
	}
	without(c.s.byHost, strings.ToLower(svc.Hostname), svc)
	for _, b := range svc.Blocks {
		list, _ := c.s.blocks.Get(b)
		if rest := slices.DeleteFunc(slices.Clone(list), func(o *Service) bool { return o == svc }); len(rest) > 0 {
			c.s.blocks.Insert(b, rest)
		} else {
			c.s.blocks.Delete(b)
		}
	}
}

// without takes a service out of an index.
func without[K comparable](index map[K][]*Service, k K, svc *Service) {
	rest := slices.DeleteFunc(slices.Clone(index[k]), func(o *Service) bool { return o == svc })
	if len(rest) == 0 {
		delete(index, k)
	} else {
		index[k] = rest
	}
}

// Policies replaces policies.
func (c Change) Policies(updated []*authz.Policy, removed []authz.Key) {
	c.s.policies = c.s.policies.With(updated, removed)
}

// Workload finds the workload behind an address, nil when it is not known.
func (s *Store) Workload(a netip.Addr) *Workload {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byAddr[a.Unmap()]
}

// Enrolled names what of the mesh is at an address: an enrolled workload, or a Service
// before some. Nothing else may be reached there, and never in plaintext.
func (s *Store) Enrolled(a netip.Addr) (what string, ok bool) {
	a = a.Unmap()
	s.mu.RLock()
	defer s.mu.RUnlock()
	if w := s.byAddr[a]; w != nil && (w.HBONE || w.Waypoint != nil) {
		return "workload " + w.Namespace + "/" + w.Name, true
	}
	for _, svc := range s.byVIP[a] {
		enrolled := svc.Waypoint != nil || slices.ContainsFunc(s.endpoints[svc.Key], func(e endpoint) bool { return e.w.HBONE })
		if !svc.External && enrolled {
			return "Service " + svc.Namespace + "/" + svc.Name, true
		}
	}
	return "", false
}

// WorkloadByName finds a workload by namespace and name.
func (s *Store) WorkloadByName(namespace, n string) *Workload {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byName[name{namespace, n}]
}

// Identities gives whom the proxy of a node speaks for: who runs there, is
// enrolled, and does not speak for itself.
func (s *Store) Identities(node string) map[identity.ID]struct{} {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make(map[identity.ID]struct{}, len(s.local[node]))
	for id := range s.local[node] {
		out[id] = struct{}{}
	}
	return out
}

// Reachable reports whether the workload of that uid still takes tunnels at an address.
func (s *Store) Reachable(uid string, a netip.Addr) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	w := s.workloads[uid]
	return w != nil && w.HBONE && slices.Contains(w.Addresses, a)
}

// Evaluator gives the policies of a workload.
func (s *Store) Evaluator(w *Workload) *authz.Evaluator {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.policies.For(w.Namespace, w.Policies)
}

// EvaluatorFor gives the policies of a namespace and the mesh, and those listed,
// each as <namespace>/<name>.
func (s *Store) EvaluatorFor(namespace string, listed []string) *authz.Evaluator {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.policies.For(namespace, listed)
}

// ServiceTarget finds the port of workload w behind a hostname and port.
func (s *Store) ServiceTarget(w *Workload, hostname string, port uint16) (*Service, uint16, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, m := range w.Services {
		if _, host, _ := strings.Cut(m.Service, "/"); host != hostname {
			continue
		}
		svc := s.services[m.Service]
		if svc == nil {
			continue
		}
		target, ok := svc.Target(&m, port)
		if !ok {
			return nil, 0, fmt.Errorf("service %s has no port %d at workload %s", m.Service, port, w.UID)
		}
		return svc, target, nil
	}
	return nil, 0, fmt.Errorf("workload %s is not of service %s", w.UID, hostname)
}

// Snapshot gives everything, sorted, for a dump.
func (s *Store) Snapshot() (workloads []*Workload, services []*Service, policies []*authz.Policy) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	workloads = slices.SortedFunc(maps.Values(s.workloads), func(a, b *Workload) int { return strings.Compare(a.UID, b.UID) })
	services = slices.SortedFunc(maps.Values(s.services), func(a, b *Service) int { return strings.Compare(a.Key, b.Key) })
	policies = slices.SortedFunc(s.policies.All(), func(a, b *authz.Policy) int { return strings.Compare(a.Key().String(), b.Key().String()) })
	return workloads, services, policies
}
