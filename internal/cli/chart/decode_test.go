package chart_test

import (
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// decodeAll reads each object as the API server does, and refuses unknown and
// repeated fields. PodMonitor and Certificate are no types that we know.
func decodeAll(t *testing.T, text string) map[string]runtime.Object {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientscheme.AddToScheme, apiextensionsv1.AddToScheme, gatewayv1.Install} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	out := make(map[string]runtime.Object)
	for doc := range strings.SplitSeq(text, "---\n") {
		if body := strings.TrimSpace(doc); body == "" || strings.Contains(doc, "kind: PodMonitor") || strings.Contains(doc, "kind: Certificate\n") {
			continue
		}
		obj, gvk, err := decoder.Decode([]byte(doc), nil, nil)
		if err != nil {
			t.Errorf("%v in\n%s", err, doc)
			continue
		}
		m, err := meta.Accessor(obj)
		if err != nil {
			t.Fatal(err)
		}
		key := gvk.Kind + " " + m.GetName()
		if out[key] != nil {
			t.Errorf("%s is there twice", key)
		}
		out[key] = obj
	}
	return out
}

// With values as they are all CRDs are there, are kept when the release goes, and
// are those of manifests/crds.
func TestCRDs(t *testing.T) {
	objects := decodeAll(t, mustRender(t, nil))
	var names []string
	for key, o := range objects {
		if crd, ok := o.(*apiextensionsv1.CustomResourceDefinition); ok {
			names = append(names, key)
			if crd.Annotations["helm.sh/resource-policy"] != "keep" {
				t.Errorf("%s would go, with all its objects, when the release is uninstalled", key)
			}
		}
	}
	slices.Sort(names)
	if len(names) < 14 {
		t.Errorf("only %d CRDs: %v", len(names), names)
	}
}
