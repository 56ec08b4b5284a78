package local

import (
	"cmp"
	"slices"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/ambit-mesh/ambit/internal/local/control"
	"github.com/ambit-mesh/ambit/internal/local/dns"
	"github.com/ambit-mesh/ambit/internal/local/service"
	"github.com/ambit-mesh/ambit/internal/local/vip"
	"github.com/ambit-mesh/ambit/internal/local/wire"
	"github.com/ambit-mesh/ambit/internal/local/workload"
	"github.com/ambit-mesh/ambit/internal/manifest"
)

// reconcile brings what runs one step nearer to the manifests, and brings
// addresses, names and the overlay up to date with what runs.
func (s *supervisor) reconcile() {
	objects, problems, loaded := s.state()
	if !loaded {
		return
	}
	slices.SortFunc(objects, func(a, b manifest.Object) int { return a.Key().Compare(b.Key()) })
	problems = append(problems, s.labelNodes(objects)...)
	waypoints := waypointsOf(objects)
	made, more := s.provision(objects, waypoints)
	objects, problems = append(objects, made...), append(problems, more...)
	owners, fatal, notes := s.ownersOf(objects)
	problems = append(problems, fatal...)
	problems = append(problems, s.act(owners)...)

	members := s.sweep()
	pods := make([]*corev1.Pod, len(members))
	for i, m := range members {
		pods[i] = m.pod.Object()
	}
	backed, unassigned := s.back(objects, pods)
	problems = append(problems, unassigned...)
	s.program(backed, pods)
	generated := s.publish(objects, made, pods, backed)
	for _, gw := range s.gatewaysWithStatus(waypoints, backed) {
		generated = append(generated, gw)
	}
	s.release(members)
	s.report(pods)
	s.mu.Lock()
	known := s.view.ready // and so it was known then
	s.mu.Unlock()
	ready := s.allReady(owners, members, pods) && (known || s.isKnown(pods))
	s.conclude(view{
		ready: ready, problems: problems, notes: notes, objects: generated,
	})
}

// ownersOf gives what wants pods. What cannot run stays as it last could.
func (s *supervisor) ownersOf(objects []manifest.Object) (owners []*workload.Owner, fatal, notes []manifest.Problem) {
	current := make(map[manifest.Key]*workload.Owner)
	for _, o := range objects {
		own, ok := workload.OwnerOf(o)
		if !ok {
			continue
		}
		path := "spec.template.spec"
		if o.Key().Kind == "Pod" {
			path = "spec"
		}
		bad, odd := workload.Check(o, own.Template(), path, s.options.Rootless)
		fatal, notes = append(fatal, bad...), append(notes, odd...)
		if len(bad) > 0 {
			own = s.owners[o.Key()]
		}
		if own != nil {
			current[own.Key] = own
			owners = append(owners, own)
		}
	}
	s.owners = current
	return owners, fatal, notes
}

// back gives the services with addresses and what is behind them.
func (s *supervisor) back(objects []manifest.Object, pods []*corev1.Pod) ([]service.Backed, []manifest.Problem) {
	var services []manifest.Object
	var listed []*discoveryv1.EndpointSlice
	for _, o := range objects {
		switch r := o.Resource.(type) {
		case *corev1.Service:
			o.Resource = r.DeepCopy()
			services = append(services, o)
		case *discoveryv1.EndpointSlice:
			listed = append(listed, r)
		}
	}
	problems := s.allocator.Assign(services)
	backed := make([]service.Backed, len(services))
	for i, o := range services {
		svc := o.Resource.(*corev1.Service)
		backed[i] = service.Backed{Service: svc, Endpoints: service.Endpoints(svc, pods, listed)}
	}
	return backed, problems
}

// program makes services work on every node, by address and by name.
func (s *supervisor) program(backed []service.Backed, pods []*corev1.Pod) {
	for _, n := range s.nodes {
		table := vip.Table{Frontends: service.Frontends(backed, n.wire.Name)}
		table.Virtual, table.Exempt = append(table.Virtual, wire.Services4), append(table.Exempt, wire.DNS4)
		if s.wire.IPv6 {
			table.Virtual, table.Exempt = append(table.Virtual, wire.Services6), append(table.Exempt, wire.DNS6)
		}
		table.Local = n.localAddrs(pods)
		if err := n.vip.Program(table); err != nil {
			s.journal.warn("node %s: %v", n.wire.Name, err)
		}
	}
	var namespaces []string
	for _, b := range backed {
		namespaces = append(namespaces, b.Service.Namespace)
	}
	s.dns.Set(dns.NewZone(s.options.ClusterDomain, namespaces, backed))
}

// publish writes the overlay and gives its objects.
func (s *supervisor) publish(objects, made []manifest.Object, pods []*corev1.Pod, backed []service.Backed) []manifest.Resource {
	all := implied(objects)
	for _, o := range made {
		if _, ok := o.Resource.(*corev1.Service); !ok { // which comes with its address
			all = append(all, o.Resource)
		}
	}
	for _, n := range s.nodes {
		all = append(all, n.obj)
	}
	for _, p := range pods {
		all = append(all, p)
	}
	for _, b := range backed {
		all = append(all, b.Service)
		for _, slice := range service.Slices(b.Service, b.Endpoints) {
			all = append(all, slice)
		}
	}
	if err := s.overlay.Write(all); err != nil {
		s.journal.warn("%v", err)
	}
	return all
}

// allReady reports whether everything that is wanted runs as wanted.
func (s *supervisor) allReady(owners []*workload.Owner, members []*member, pods []*corev1.Pod) bool {
	for _, c := range s.components {
		if !c.Status().Ready {
			return false
		}
	}
	have := make(map[manifest.Key]int)
	for i, m := range members {
		own := s.owners[m.owner]
		if m.retired || own == nil || m.hash != own.Hash {
			return false // on its way out
		}
		if isReady(pods[i]) || pods[i].Status.Phase == corev1.PodSucceeded {
			have[m.owner]++
		}
	}
	for _, o := range owners {
		if have[o.Key] < o.Replicas {
			return false
		}
	}
	return true
}

func isReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// conclude keeps the view, and tells what is new in it.
func (s *supervisor) conclude(v view) {
	slices.SortFunc(v.problems, func(a, b manifest.Problem) int {
		return cmp.Or(a.Position.Compare(b.Position), cmp.Compare(a.Error(), b.Error()))
	})
	s.mu.Lock()
	old := s.view
	s.view = v
	s.mu.Unlock()
	known := make(map[string]bool)
	for _, p := range append(old.problems, old.notes...) {
		known[p.Error()] = true
	}
	for _, p := range v.problems {
		if !known[p.Error()] {
			s.journal.warn("%s", p.Error())
		}
	}
	for _, p := range v.notes {
		if !known[p.Error()] {
			s.journal.info("note: %s", p.Error())
		}
	}
	if v.ready && !old.ready {
		s.journal.add(control.Event{Level: "info", Message: "everything is ready", Ready: true})
	}
	if !v.ready && old.ready {
		s.log.Debug("not ready any more", zap.Int("problems", len(v.problems)))
	}
}
