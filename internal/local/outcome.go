package local

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/internal/local/control"
	"github.com/ambit-mesh/ambit/internal/manifest"
)

// outcomes is what the control plane says of objects, in /debug/status.
type outcomes struct {
	Routes []struct {
		Object  manifest.Key                  `json:"object"`
		Parents []gatewayv1.RouteParentStatus `json:"parents"`
	} `json:"routes"`
	Statuses []struct {
		Object manifest.Key              `json:"object"`
		Status meshv1alpha1.PolicyStatus `json:"status"`
	} `json:"statuses"`
}

// statuses gives the fields of status that the control plane would write into
// objects in a cluster.
func (o *outcomes) statuses() map[manifest.Key]map[string]any {
	all := make(map[manifest.Key]map[string]any)
	for _, r := range o.Routes {
		all[r.Object] = map[string]any{"parents": r.Parents}
	}
	for _, s := range o.Statuses {
		fields := make(map[string]any)
		// Policies of Gateway API have no summary.
		if len(s.Status.Conditions) > 0 && s.Object.Group != "gateway.networking.x-k8s.io" {
			fields["conditions"] = s.Status.Conditions
		}
		if len(s.Status.Ancestors) > 0 {
			fields["ancestors"] = s.Status.Ancestors
		}
		all[s.Object] = fields
	}
	return all
}

// withStatus gives objects as JSON, with what the control plane says of them. One
// that is not asked, or does not answer, says nothing.
func (s *supervisor) withStatus(ctx context.Context, objects []manifest.Resource) ([]json.RawMessage, error) {
	var told outcomes
	_ = s.askAdmin(ctx, "/debug/status", &told)
	statuses := told.statuses()
	out := make([]json.RawMessage, 0, len(objects))
	for _, o := range objects {
		raw, err := json.Marshal(o)
		if err != nil {
			return nil, err
		}
		// A Gateway's status is made here.
		k := manifest.Object{Resource: o}.Key()
		if fields := statuses[k]; fields != nil && k.Kind != "Gateway" {
			if raw, err = addStatus(raw, fields); err != nil {
				return nil, err
			}
		}
		out = append(out, raw)
	}
	return out, nil
}

func addStatus(raw json.RawMessage, fields map[string]any) (json.RawMessage, error) {
	text, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	var added any
	var object map[string]any
	if err := json.Unmarshal(text, &added); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &object); err != nil {
		return nil, err
	}
	forget(added)
	status, _ := object["status"].(map[string]any)
	if status == nil {
		status = make(map[string]any)
	}
	for name, value := range added.(map[string]any) {
		status[name] = value
	}
	object["status"] = status
	return json.Marshal(object)
}

// forget leaves out when a condition changed, which nobody has noted here.
func forget(v any) {
	switch v := v.(type) {
	case map[string]any:
		if at, ok := v["lastTransitionTime"]; ok && at == nil {
			delete(v, "lastTransitionTime")
		}
		for _, x := range v {
			forget(x)
		}
	case []any:
		for _, x := range v {
			forget(x)
		}
	}
}

// refusedRoutes gives the routes that a parent does not accept.
func (o *outcomes) refusedRoutes() []control.Route {
	var out []control.Route
	for _, r := range o.Routes {
		for _, p := range r.Parents {
			i := slices.IndexFunc(p.Conditions, func(c metav1.Condition) bool {
				return c.Type == string(gatewayv1.RouteConditionAccepted) && c.Status != metav1.ConditionTrue
			})
			if i < 0 {
				continue
			}
			out = append(out, control.Route{
				Kind: r.Object.Kind, Namespace: r.Object.Namespace, Name: r.Object.Name,
				Parent: control.ParentName(r.Object.Namespace, p.ParentRef), Reason: p.Conditions[i].Reason,
			})
		}
	}
	slices.SortStableFunc(out, func(a, b control.Route) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return out
}
