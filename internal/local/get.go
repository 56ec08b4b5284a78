package local

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/internal/local/control"
	"github.com/ambit-mesh/ambit/internal/manifest"
)

// aliases are the short names of kinds, as kubectl has them.
var aliases = map[string]string{
	"po": "pod", "svc": "service", "deploy": "deployment", "sts": "statefulset", "ns": "namespace", "no": "node",
	"sa": "serviceaccount", "ep": "endpointslice", "endpoints": "endpointslice", "gtw": "gateway", "ap": "authorizationpolicy",
}

// list is a Kubernetes List.
type list struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Items      []json.RawMessage `json:"items"`
}

// get gives objects: the user's, those that the local mesh made, and where both
// have one the latter, which has the status. The status of others is the control
// plane's to say.
func (s *supervisor) get(ctx context.Context, a control.GetArgs) (list, error) {
	kind := strings.ToLower(a.Kind)
	if full, ok := aliases[kind]; ok {
		kind = full
	}
	s.mu.Lock()
	all := make(map[manifest.Key]manifest.Resource)
	for k, o := range s.objects {
		all[k] = o.Resource
	}
	for _, r := range s.view.objects {
		all[manifest.Object{Resource: r}.Key()] = r
	}
	s.mu.Unlock()
	kinds := make(map[string]bool)
	var items []manifest.Resource
	known := false
	for _, k := range slices.SortedFunc(maps.Keys(all), manifest.Key.Compare) {
		lower := strings.ToLower(k.Kind)
		kinds[lower] = true
		if kind != lower && kind != plural(lower) {
			continue
		}
		known = true
		if (a.Namespace == "" || k.Namespace == "" || k.Namespace == a.Namespace) && (a.Name == "" || k.Name == a.Name) {
			items = append(items, all[k])
		}
	}
	switch {
	case !known:
		return list{}, fmt.Errorf("there is nothing of kind %q: there are %s", a.Kind, strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
	case a.Name != "" && len(items) == 0:
		return list{}, fmt.Errorf("there is no %s %q in this local mesh", kind, a.Name)
	}
	raw, err := s.withStatus(ctx, items)
	return list{APIVersion: "v1", Kind: "List", Items: raw}, err
}

func plural(kind string) string {
	switch {
	case strings.HasSuffix(kind, "cy"):
		return strings.TrimSuffix(kind, "y") + "ies"
	case strings.HasSuffix(kind, "s"):
		return kind + "es"
	default:
		return kind + "s"
	}
}
