package compile

import (
	"cmp"
	"slices"
	"strings"

	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// Finding is something that a person should put right. The mesh goes on without
// the part that is wrong, never by granting more than was asked for.
type Finding struct {
	Object graph.Key `json:"object"`
	// Origin is the "file:line" of the field, or of the deepest part of it that is
	// written down, or "".
	Origin string `json:"origin,omitempty"`
	// Field is the path of the offending field, or "".
	Field string `json:"field,omitempty"`
	// Message says what is wrong, what it means, and what to do.
	Message string `json:"message"`
}

// String gives everything on one line.
func (f Finding) String() string {
	parts := slices.DeleteFunc([]string{f.Origin, f.Object.String(), f.Field, f.Message},
		func(s string) bool { return s == "" })
	return strings.Join(parts, ": ")
}

func (f Finding) compare(o Finding) int {
	return cmp.Or(compareObjects(f.Object, o.Object), strings.Compare(f.Field, o.Field), strings.Compare(f.Message, o.Message))
}

func compareObjects(a, b graph.Key) int {
	return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

// Status is what the status of a policy, a Service or a waypoint should say.
type Status struct {
	Object graph.Key `json:"object"`
	// Origin is the object's "file:line", or "".
	Origin string                    `json:"origin,omitempty"`
	Status meshv1alpha1.PolicyStatus `json:"status"`
}

// Findings gives what is wrong with the objects, sorted by object.
func (c *Compiler) Findings() []Finding {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []Finding
	for _, list := range c.store.findings {
		for _, f := range list {
			c.locate(&f)
			out = append(out, f)
		}
	}
	slices.SortFunc(out, Finding.compare)
	return slices.Compact(out)
}

// Statuses gives the status of every policy, of every Service that is bound to a
// waypoint, and of every waypoint, sorted by object.
func (c *Compiler) Statuses() []Status {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []Status
	for n, t := range c.policies.translations {
		k := authzKey(n)
		out = append(out, Status{Object: k, Origin: c.graph.Origin(k, ""), Status: t.Status})
	}
	out = append(append(append(out, c.boundStatuses()...), c.gatewayStatuses()...), c.externalStatuses()...)
	for _, s := range c.policies.peers.Statuses() {
		k := peerKey(s.Namespace, s.Name)
		out = append(out, Status{Object: k, Origin: c.graph.Origin(k, ""), Status: s.Status})
	}
	for k, status := range c.attached {
		out = append(out, Status{Object: k, Origin: c.graph.Origin(k, ""), Status: status})
	}
	slices.SortFunc(out, func(a, b Status) int { return compareObjects(a.Object, b.Object) })
	return out
}

// locate fills in where the object is now: lines move without the object being
// compiled again.
func (c *Compiler) locate(f *Finding) { f.Origin = c.graph.Origin(f.Object, f.Field) }
