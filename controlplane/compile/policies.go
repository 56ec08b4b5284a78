package compile

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/apis/security"
	"github.com/ambit-mesh/ambit/controlplane/compile/policy"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// policies holds what became of the policies and finds those of a workload.
type policies struct {
	options      policy.Options
	translations map[types.NamespacedName]policy.Translation
	// selecting files the policies that choose pods by label.
	selecting graph.Selectors
	// byService has the policies that name a service that exists.
	byService map[types.NamespacedName]map[types.NamespacedName]struct{}
	// byExternal has those that name an ExternalService that exists.
	byExternal map[types.NamespacedName]map[types.NamespacedName]struct{}
	peers      *policy.Peers
	// guards are the names of what the workloads behind a service list so that
	// nobody goes around its waypoint.
	guards map[types.NamespacedName][]string
}

func newPolicies(opts policy.Options) policies {
	return policies{
		options:      opts,
		translations: make(map[types.NamespacedName]policy.Translation),
		selecting:    graph.NewSelectors(),
		byService:    make(map[types.NamespacedName]map[types.NamespacedName]struct{}),
		byExternal:   make(map[types.NamespacedName]map[types.NamespacedName]struct{}),
		peers:        policy.NewPeers(nil, opts),
		guards:       make(map[types.NamespacedName][]string),
	}
}

// serviceLookup lets the policy package find services.
type serviceLookup struct{ compiler *Compiler }

var _ policy.Services = serviceLookup{}

func (l serviceLookup) Service(namespace, name string) *corev1.Service {
	item, _ := l.compiler.graph.Service(types.NamespacedName{Namespace: namespace, Name: name})
	return item.Object
}

func (l serviceLookup) Waypoint(namespace, name string) (types.NamespacedName, bool) {
	s := l.Service(namespace, name)
	if s == nil {
		return types.NamespacedName{}, false
	}
	b := l.compiler.bindingOfService(types.NamespacedName{Namespace: namespace, Name: name}, s)
	return b.waypoint, b.bound()
}

// External says whether there is an ExternalService, and gives its waypoint.
func (l serviceLookup) External(namespace, name string) (types.NamespacedName, bool) {
	n := types.NamespacedName{Namespace: namespace, Name: name}
	_, ok := l.compiler.graph.ExternalService(n)
	return l.compiler.externalBinding(n).waypoint, ok
}

// compilePolicies translates the AuthorizationPolicies that changed, or whose
// services did, and marks the pods that have to list them or no longer do.
func (c *Compiler) compilePolicies(d *graph.Dirty) {
	for n := range d.AuthorizationPolicies {
		c.markTargets(n, d)
		c.policies.unbind(n)
		item, ok := c.graph.AuthorizationPolicy(n)
		if !ok {
			c.store.put(authzKey(n), nil, nil)
			continue
		}
		t := policy.Translate(item.Object, serviceLookup{c}, c.policies.options)
		c.policies.bind(n, t)
		c.markTargets(n, d)
		var resources []*Resource
		if t.Authorization != nil {
			resources = append(resources, authorization(t.Authorization))
		}
		c.store.put(authzKey(n), resources, problemFindings(authzKey(n), t.Problems))
	}
}

func authorization(a *security.Authorization) *Resource {
	return resource(TypeAuthorization, a.Namespace+"/"+a.Name, a)
}

func problemFindings(owner graph.Key, problems []policy.Problem) []Finding {
	var out []Finding
	for _, p := range problems {
		out = append(out, Finding{Object: owner, Field: p.Field, Message: p.Message})
	}
	return out
}

func (p *policies) bind(n types.NamespacedName, t policy.Translation) {
	p.translations[n] = t
	switch t.Targets.Kind {
	case policy.TargetSelector:
		p.selecting.Set(n, t.Targets.Selector)
	case policy.TargetServices:
		note(p.byService, t.Targets.Namespace, t.Targets.Services, n)
		note(p.byExternal, t.Targets.Namespace, t.Targets.Externals, n)
	}
}

// note files a policy under the objects of a namespace that it names.
func note(index map[types.NamespacedName]map[types.NamespacedName]struct{}, namespace string, names []string, policy types.NamespacedName) {
	for _, name := range names {
		key := types.NamespacedName{Namespace: namespace, Name: name}
		if index[key] == nil {
			index[key] = make(map[types.NamespacedName]struct{})
		}
		index[key][policy] = struct{}{}
	}
}

// forget undoes note.
func forget(index map[types.NamespacedName]map[types.NamespacedName]struct{}, namespace string, names []string, policy types.NamespacedName) {
	for _, name := range names {
		key := types.NamespacedName{Namespace: namespace, Name: name}
		if delete(index[key], policy); len(index[key]) == 0 {
			delete(index, key)
		}
	}
}

func (p *policies) unbind(n types.NamespacedName) {
	t, ok := p.translations[n]
	if !ok {
		return
	}
	delete(p.translations, n)
	p.selecting.Remove(n)
	forget(p.byService, t.Targets.Namespace, t.Targets.Services, n)
	forget(p.byExternal, t.Targets.Namespace, t.Targets.Externals, n)
}

// markTargets marks the pods that list a policy, or the services whose waypoints
// enforce it.
func (c *Compiler) markTargets(n types.NamespacedName, d *graph.Dirty) {
	t, ok := c.policies.translations[n]
	if !ok || t.Authorization == nil {
		return
	}
	// Where one policy is enforced by the waypoint, all of the service are.
	for _, svc := range t.Targets.Services {
		d.Services[types.NamespacedName{Namespace: t.Targets.Namespace, Name: svc}] = struct{}{}
	}
	for _, es := range t.Targets.Externals {
		d.ExternalServices[types.NamespacedName{Namespace: t.Targets.Namespace, Name: es}] = struct{}{}
	}
	if t.AtWaypoint {
		return
	}
	switch targets := t.Targets; targets.Kind {
	case policy.TargetSelector:
		for _, pod := range c.graph.PodsSelected(targets.Namespace, targets.Selector) {
			d.Pods[pod] = struct{}{}
		}
	case policy.TargetServices:
		for _, svc := range targets.Services {
			for _, pod := range c.graph.PodsOf(types.NamespacedName{Namespace: targets.Namespace, Name: svc}) {
				d.Pods[pod] = struct{}{}
			}
		}
	}
}

// policiesOf gives the policies that a pod has to list, sorted.
func (c *Compiler) policiesOf(n types.NamespacedName, labels map[string]string) []string {
	found := make(map[string]struct{})
	add := func(p types.NamespacedName) {
		if t := c.policies.translations[p]; t.Authorization != nil && !t.AtWaypoint {
			found[p.Namespace+"/"+p.Name] = struct{}{}
		}
	}
	c.policies.selecting.Matching(n.Namespace, labels, add)
	if len(c.policies.byService)+len(c.policies.guards) > 0 {
		for _, svc := range c.graph.ServicesOf(n) {
			for p := range c.policies.byService[svc] {
				add(p)
			}
			for _, guard := range c.policies.guards[svc] {
				found[guard] = struct{}{}
			}
		}
	}
	if p := c.policies.peers.Effective(n.Namespace, labels).Policy; p != "" {
		found[p] = struct{}{}
	}
	if len(found) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(found))
}

// compilePeers reads all PeerAuthentications anew when one changed, because they
// inherit from each other, and marks the pods for which another one decides.
func (c *Compiler) compilePeers(d *graph.Dirty) {
	if len(d.PeerAuthentications) == 0 {
		return
	}
	old := c.policies.peers
	peers := policy.NewPeers(c.graph.PeerAuthentications(), c.policies.options)
	c.policies.peers = peers
	for n := range c.affected(d) {
		item, _ := c.graph.Pod(n)
		labels := item.Object.Labels
		if old.Effective(n.Namespace, labels).Policy != peers.Effective(n.Namespace, labels).Policy {
			d.Pods[n] = struct{}{}
		}
	}
	var resources []*Resource
	for _, a := range peers.Authorizations() {
		resources = append(resources, authorization(a))
	}
	c.store.put(peersOwner, resources, nil)
	for n := range d.PeerAuthentications {
		if _, ok := c.graph.PeerAuthentication(n); !ok {
			c.store.report(peerKey(n.Namespace, n.Name), nil)
		}
	}
	for _, s := range peers.Statuses() {
		k := peerKey(s.Namespace, s.Name)
		c.store.report(k, problemFindings(k, s.Problems))
	}
}

// affected gives the pods of the namespaces whose PeerAuthentications changed,
// all pods if the root namespace is among them.
func (c *Compiler) affected(d *graph.Dirty) map[types.NamespacedName]struct{} {
	out := make(map[types.NamespacedName]struct{})
	for n := range d.PeerAuthentications {
		if n.Namespace == c.policies.options.RootNamespace {
			return c.graph.Pods()
		}
		for _, pod := range c.graph.PodsIn(n.Namespace) {
			out[pod] = struct{}{}
		}
	}
	return out
}
