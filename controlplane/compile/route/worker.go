package route

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/controlplane/compile/traffic"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

func itoa(n int32) string { return strconv.Itoa(int(n)) }

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// worker translates the rules of one route.
type worker struct {
	t       *translation
	key     graph.Key
	object  graph.Object
	section string
	// Of the rule under way:
	rule *waypoint.Rule
	at   string // its path

	problems []problem
	// dead are the rules that answer with an error, or are left out.
	dead map[int]bool
}

// begin starts a rule.
func (w *worker) begin(index int, name *gatewayv1.SectionName) {
	w.rule = &waypoint.Rule{Index: uint32(index)} // #nosec G115 -- a position in a list
	if name != nil {
		w.rule.Name = string(*name)
	}
	w.at = fmt.Sprintf("spec.rules[%d]", index)
}

// end gives the rule with what it inherits.
func (w *worker) end(layer7 bool) *waypoint.Rule {
	w.t.inherit(w.rule, &w.key, w.rule.GetName(), w.section, layer7)
	return w.rule
}

func (w *worker) note(field string, reference bool, reason gatewayv1.RouteConditionReason, message string) {
	w.problems = append(w.problems, problem{
		rule: int(w.rule.GetIndex()), field: field, reference: reference, reason: reason, message: message,
	})
}

// invalid makes the whole rule answer with an error.
func (w *worker) invalid(field string, reference bool, reason gatewayv1.RouteConditionReason, message string) {
	w.note(field, reference, reason, message)
	if !reference {
		w.dead[int(w.rule.GetIndex())] = true
	}
	if w.rule.Invalid == "" {
		w.rule.Invalid = field + ": " + message
	}
}

func (w *worker) unsupported(field, format string, args ...any) {
	w.invalid(field, false, gatewayv1.RouteReasonUnsupportedValue, fmt.Sprintf(format, args...))
}

// resolve looks up a backend and says what is wrong with the reference.
func (w *worker) resolve(field string, ref *gatewayv1.BackendObjectReference, use traffic.Use) traffic.Resolved {
	var b traffic.Resolved
	if k, outside := graph.BackendExternal(w.key.Namespace, ref); outside && w.t.in.Service != nil && k == w.t.parent() {
		b = traffic.ResolveHost(w.t.mesh, w.t.in.Service, w.t.self(), ref, use)
	} else {
		b = traffic.Resolve(w.t.mesh, w.key.Namespace, ref, use)
	}
	if b.Reason != "" {
		w.note(field, true, gatewayv1.RouteConditionReason(b.Reason), b.Message)
	}
	return b
}

// backend adds one of the backends among which requests are split.
func (w *worker) backend(field string, ref *gatewayv1.BackendRef, use traffic.Use) *waypoint.WeightedBackend {
	b := w.resolve(field, &ref.BackendObjectReference, use)
	if b.Reason == "" && use != traffic.UseBytes && use != traffic.UseDatagrams && b.Service.Name != "" {
		b.Ref.Invalid = w.t.refusedLimit(b.Service)
	}
	out := &waypoint.WeightedBackend{Weight: 1, Backend: b.Ref}
	if ref.Weight != nil {
		out.Weight = uint32(max(*ref.Weight, 0)) // #nosec G115 -- not negative
		if *ref.Weight < 0 || *ref.Weight > 1_000_000 {
			w.unsupported(field+".weight", "%d is not a weight; use 0 to 1000000", *ref.Weight)
		}
	}
	w.rule.Backends = append(w.rule.Backends, out)
	return out
}

// opaqueRule translates a rule of a TLSRoute, TCPRoute or UDPRoute.
func (w *worker) opaqueRule(index int, name *gatewayv1.SectionName, refs []gatewayv1.BackendRef, use traffic.Use) *waypoint.Rule {
	w.begin(index, name)
	for i := range refs {
		w.backend(fmt.Sprintf("%s.backendRefs[%d]", w.at, i), &refs[i], use)
	}
	return w.end(false)
}
