package provision_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/controlplane/provision"
)

// FuzzOverlay: no parameters crash, and none that are accepted take from the mesh
// by what it knows its objects.
func FuzzOverlay(f *testing.F) {
	f.Add("deployment", `{spec: {minReadySeconds: 5, template: {spec: {nodeSelector: {a: b}}}}}`)
	f.Add("deployment", `{spec: {template: {spec: {containers: [{name: waypoint, resources: {limits: {memory: 1Gi}}}]}}}}`)
	f.Add("deployment", `{spec: {template: {spec: {containers: [{name: waypoint, $patch: delete}]}}}}`)
	f.Add("deployment", `{metadata: {name: other}}`)
	f.Add("deployment", `{metadata: null, spec: null}`)
	f.Add("service", `{spec: {selector: {a: b}}}`)
	f.Add("service", `{metadata: {labels: {$retainKeys: [a]}}}`)
	f.Add("serviceAccount", `[]`)
	f.Add("nothing", `{}`)
	f.Add("deployment", "&a [*a]")
	f.Fuzz(func(t *testing.T, key, text string) {
		gw := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "wp", Namespace: "shop", UID: "u", Annotations: map[string]string{"ambit-mesh.io/waypoint-replicas": "2"}}}
		o, before := provision.Make(gw, provision.Options{Image: "i"}), provision.Make(gw, provision.Options{Image: "i"})
		if len(provision.Overlay(&o, map[string]string{key: text})) > 0 {
			return
		}
		have, want := o.All(), before.All()
		if len(have) < len(want) {
			t.Fatalf("%d objects of %d are left", len(have), len(want))
		}
		for i := range want {
			h, w := have[i], want[i]
			if h.GetName() != w.GetName() || h.GetNamespace() != w.GetNamespace() || !cmp.Equal(h.GetOwnerReferences(), w.GetOwnerReferences()) {
				t.Fatalf("another object: %+v", h)
			}
			for _, l := range []string{"gateway.networking.k8s.io/gateway-name", "ambit-mesh.io/dataplane-mode", provision.LabelManagedBy} {
				if h.GetLabels()[l] != w.GetLabels()[l] {
					t.Fatalf("%T: label %s is %q, not %q", h, l, h.GetLabels()[l], w.GetLabels()[l])
				}
			}
		}
		if len(o.Deployment.Spec.Template.Spec.Containers) == 0 || !cmp.Equal(o.Deployment.Spec.Selector, before.Deployment.Spec.Selector) || !cmp.Equal(o.Service.Spec.Selector, before.Service.Spec.Selector) {
			t.Fatalf("accepted, and no waypoint is left: %s", text)
		}
	})
}
