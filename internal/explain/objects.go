package explain

import (
	"encoding/json"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protojson"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// conditionCaptured says on a pod of a cluster that it is captured.
const conditionCaptured corev1.PodConditionType = "ambit-mesh.io/Captured"

// Compile makes of objects what a control plane would tell the proxies. Which pods
// are captured their conditions say.
func Compile(objects []graph.Entry, o compile.Options) (*State, error) {
	c, err := compile.New(o)
	if err != nil {
		return nil, err
	}
	c.Apply(compile.Input{Upserts: objects})
	reports := make(map[string]*compile.CaptureReport)
	for _, e := range objects {
		p, ok := e.Object.(*corev1.Pod)
		if !ok || !isCaptured(p) {
			continue
		}
		r := reports[p.Spec.NodeName]
		if r == nil {
			r = &compile.CaptureReport{Node: p.Spec.NodeName, Snapshot: true}
			reports[p.Spec.NodeName] = r
		}
		r.Pods = append(r.Pods, compile.PodCapture{UID: p.UID, Captured: true})
	}
	var in compile.Input
	for _, node := range slices.Sorted(maps.Keys(reports)) {
		in.Reports = append(in.Reports, *reports[node])
	}
	c.Apply(in)
	dump := make(map[string][]dumped)
	for _, typ := range []string{typeAddress, typeAuthorization, typeFrontend} {
		for _, r := range c.Resources(typ) {
			body, err := protojson.Marshal(r.Body)
			if err != nil {
				return nil, err
			}
			dump[typ] = append(dump[typ], dumped{Name: r.Name, Body: body})
		}
	}
	raw, err := json.Marshal(dump)
	if err != nil {
		return nil, err
	}
	return Read(raw)
}

func isCaptured(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == conditionCaptured {
			return c.Status == corev1.ConditionTrue && c.Reason != "Releasing"
		}
	}
	return false
}

// BoundBy says which label binds a Service to its waypoint; "" if none does.
func BoundBy(objects []graph.Entry, namespace, name string) string {
	var ofService, ofNamespace string
	for _, e := range objects {
		label := e.Object.GetLabels()[graph.LabelUseWaypoint]
		if label == "" {
			continue
		}
		at := ""
		if e.Origin != nil {
			at = " (" + e.Origin("metadata.labels") + ")"
		}
		switch o := e.Object.(type) {
		case *corev1.Service:
			if o.Namespace == namespace && o.Name == name {
				ofService = "bound by the label " + graph.LabelUseWaypoint + " of Service " + namespace + "/" + name + at
			}
		case *corev1.Namespace:
			if o.Name == namespace {
				ofNamespace = "bound by the label " + graph.LabelUseWaypoint + " of Namespace " + namespace + at
			}
		}
	}
	if ofService != "" {
		return ofService
	}
	return ofNamespace
}
