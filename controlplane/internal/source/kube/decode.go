package kube

import (
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"

	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// Decode gives an object that is written as JSON in the form in which a Source delivers
// it. Without an error it is nil where the mesh reads no object of that kind, whatever
// version of it.
func Decode(k schema.GroupKind, data []byte) (graph.Object, error) {
	for _, known := range kinds() {
		if known.GroupKind != k {
			continue
		}
		obj := known.make()
		if err := kjson.UnmarshalCaseSensitivePreserveInts(data, obj); err != nil {
			return nil, err
		}
		if _, err := trim(obj); err != nil {
			return nil, err
		}
		return obj, nil
	}
	return nil, nil
}
