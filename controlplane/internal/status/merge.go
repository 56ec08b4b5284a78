package status

import (
	"reflect"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
)

// Wanted is what the mesh wants in a status. A part that is nil is not the
// mesh's business; one that is empty holds nothing of the mesh's.
type Wanted struct {
	// Conditions of the object itself, by type. Types are those that are to go
	// when they are not among them.
	Conditions []metav1.Condition
	Types      []string
	// Parents of a route and Ancestors of a policy, with the mesh's controllerName.
	Parents   *[]gatewayv1.RouteParentStatus
	Ancestors *[]gatewayv1.PolicyAncestorStatus
	// Addresses and Listeners of a Gateway, Features of a class or a mesh, whole.
	Addresses *[]gatewayv1.GatewayStatusAddress
	Listeners *[]gatewayv1.ListenerStatus
	Features  *[]gatewayv1.SupportedFeature
	// External are the virtual addresses of an ExternalService, whole.
	External *[]meshv1alpha1.ExternalAddresses
}

// Transition is a condition that came to say something else.
type Transition struct {
	metav1.Condition
	// Of names the parent, ancestor or listener that it is about, "" for the
	// object itself.
	Of string
}

// Merge brings a status, in the form of JSON, to what is wanted, and says whether
// that changed anything. The time of a condition's last transition is kept while
// its status is.
func Merge(status map[string]any, w Wanted, now time.Time) (changed bool, transitions []Transition, err error) {
	m := merger{now: metav1.NewTime(now.Truncate(time.Second))}
	m.conditions(status, w)
	if w.Parents != nil {
		entries(&m, status, "parents", *w.Parents, "parentRef")
	}
	if w.Ancestors != nil {
		entries(&m, status, "ancestors", *w.Ancestors, "ancestorRef")
	}
	if w.Listeners != nil {
		listeners(&m, status, *w.Listeners)
	}
	if w.Addresses != nil {
		m.set(status, "addresses", list(&m, *w.Addresses))
	}
	if w.External != nil {
		m.set(status, "addresses", list(&m, *w.External))
	}
	if w.Features != nil {
		m.set(status, "supportedFeatures", list(&m, *w.Features))
	}
	return m.changed, m.transitions, m.err
}

type merger struct {
	now         metav1.Time
	changed     bool
	transitions []Transition
	err         error
}

// set replaces a list; an empty one that is not there stays so.
func (m *merger) set(in map[string]any, field string, to []any) {
	from, _ := in[field].([]any)
	if len(from) == 0 && len(to) == 0 || reflect.DeepEqual(from, to) {
		return
	}
	m.changed = true
	if len(to) == 0 && field != "parents" && field != "ancestors" {
		delete(in, field)
		return
	}
	in[field] = to
}

// json gives a value as it is decoded from JSON.
func (m *merger) json(v any) map[string]any {
	out, err := runtime.DefaultUnstructuredConverter.ToUnstructured(v)
	if err != nil && m.err == nil {
		m.err = err
	}
	return out
}

func list[T any](m *merger, values []T) []any {
	out := make([]any, 0, len(values))
	for i := range values {
		out = append(out, m.json(&values[i]))
	}
	return out
}

// conditions sets those that are wanted, removes those that no longer are, and
// leaves all others where they are.
func (m *merger) conditions(status map[string]any, w Wanted) {
	have, _ := status["conditions"].([]any)
	var out []any
	for _, c := range have {
		kind := typeOf(c)
		wanted := slices.ContainsFunc(w.Conditions, func(c metav1.Condition) bool { return c.Type == kind })
		if wanted || !slices.Contains(w.Types, kind) {
			out = append(out, c)
		}
	}
	m.set(status, "conditions", m.timed(out, w.Conditions, ""))
}

// timed puts wanted conditions into a list of them.
func (m *merger) timed(have []any, wanted []metav1.Condition, of string) []any {
	out := slices.Clone(have)
	for _, c := range wanted {
		i := slices.IndexFunc(out, func(have any) bool { return typeOf(have) == c.Type })
		c.LastTransitionTime = m.now
		if i < 0 {
			m.transitions = append(m.transitions, Transition{c, of})
			out = append(out, m.json(&c))
			continue
		}
		before, _ := out[i].(map[string]any)
		if before["status"] != string(c.Status) || before["reason"] != c.Reason {
			m.transitions = append(m.transitions, Transition{c, of})
		}
		now := m.json(&c)
		if before["status"] == string(c.Status) && before["lastTransitionTime"] != nil {
			now["lastTransitionTime"] = before["lastTransitionTime"]
		}
		out[i] = now
	}
	return out
}

func typeOf(c any) string {
	m, _ := c.(map[string]any)
	kind, _ := m["type"].(string)
	return kind
}

// entries replaces those of the mesh's controller in a list that controllers
// share. Others keep their place and every field.
func entries[T any](m *merger, status map[string]any, field string, wanted []T, ref string) {
	have, _ := status[field].([]any)
	var others, ours []any
	for _, e := range have {
		if controllerOf(e) == string(meshv1alpha1.ControllerName) {
			ours = append(ours, e)
		} else {
			others = append(others, e)
		}
	}
	now := list(m, wanted)
	for i, e := range now {
		entry, _ := e.(map[string]any)
		var before []any
		for _, o := range ours {
			if old, ok := o.(map[string]any); ok && reflect.DeepEqual(old[ref], entry[ref]) {
				before, _ = old["conditions"].([]any)
			}
		}
		entry["conditions"] = m.timed(keep(before, conditionsOf(any(wanted[i]))), conditionsOf(any(wanted[i])), nameOf(entry[ref]))
	}
	if sameEntries(ours, now) {
		return
	}
	m.set(status, field, append(others, now...))
}

// sameEntries compares ours, whose place among others does not matter.
func sameEntries(ours, now []any) bool {
	return len(ours) == 0 && len(now) == 0 || reflect.DeepEqual(ours, now)
}

// keep drops conditions of types that are no longer wanted: all of an entry is
// the mesh's own.
func keep(have []any, wanted []metav1.Condition) []any {
	return slices.DeleteFunc(slices.Clone(have), func(c any) bool {
		return !slices.ContainsFunc(wanted, func(w metav1.Condition) bool { return w.Type == typeOf(c) })
	})
}

func conditionsOf(entry any) []metav1.Condition {
	switch e := entry.(type) {
	case gatewayv1.RouteParentStatus:
		return e.Conditions
	case gatewayv1.PolicyAncestorStatus:
		return e.Conditions
	case gatewayv1.ListenerStatus:
		return e.Conditions
	}
	return nil
}

// listeners replaces the status of the listeners of a Gateway.
func listeners(m *merger, status map[string]any, wanted []gatewayv1.ListenerStatus) {
	have, _ := status["listeners"].([]any)
	now := list(m, wanted)
	for i, e := range now {
		entry, _ := e.(map[string]any)
		var before []any
		for _, o := range have {
			if old, ok := o.(map[string]any); ok && old["name"] == entry["name"] {
				before, _ = old["conditions"].([]any)
			}
		}
		entry["conditions"] = m.timed(keep(before, wanted[i].Conditions), wanted[i].Conditions, "listener "+string(wanted[i].Name))
	}
	m.set(status, "listeners", now)
}

func controllerOf(entry any) string {
	m, _ := entry.(map[string]any)
	name, _ := m["controllerName"].(string)
	return name
}

// nameOf names what a reference points to, for a person.
func nameOf(ref any) string {
	m, _ := ref.(map[string]any)
	kind, _ := m["kind"].(string)
	name, _ := m["name"].(string)
	if kind == "" {
		return name
	}
	return kind + " " + name
}
