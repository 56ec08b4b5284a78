package local

import (
	"context"
	"encoding/json"

	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/internal/explain"
	"github.com/ambit-mesh/ambit/internal/local/control"
	"github.com/ambit-mesh/ambit/internal/manifest"
)

// explain says what would become of a request, by what the control plane tells
// the proxies at this moment.
func (s *supervisor) explain(ctx context.Context, a control.ExplainArgs) (explain.Report, error) {
	q := a.Query
	if a.From.Name != "" {
		m, err := s.find(a.From)
		if err != nil {
			return explain.Report{}, err
		}
		o := m.pod.Object()
		q.PodNamespace, q.Pod = o.Namespace, o.Name
	}
	var dump json.RawMessage
	if err := s.askAdmin(ctx, "/config_dump", &dump); err != nil {
		return explain.Report{}, err
	}
	state, err := explain.Read(dump)
	if err != nil {
		return explain.Report{}, err
	}
	namespace, name, err := state.Subject(q)
	if err != nil {
		return explain.Report{}, err
	}
	q.BoundBy = s.boundBy(namespace, name)
	return state.Explain(q)
}

// boundBy says which label binds a service to its waypoint.
func (s *supervisor) boundBy(namespace, name string) string {
	for _, k := range []manifest.Key{{Kind: "Service", Namespace: namespace, Name: name}, {Kind: "Namespace", Name: namespace}} {
		o := s.objectAt(k)
		if o.Resource == nil || o.GetLabels()[graph.LabelUseWaypoint] == "" {
			continue
		}
		text := "bound by the label " + graph.LabelUseWaypoint + " of " + k.String()
		if at := o.Source.String(); at != "" {
			text += " (" + at + ")"
		}
		return text
	}
	return ""
}
