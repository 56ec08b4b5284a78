package local

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/internal/local/control"
	"github.com/ambit-mesh/ambit/internal/manifest"
)

const toldByControlPlane = `{
	"routes": [{
		"object": {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "shop", "name": "cart"},
		"parents": [
			{"parentRef": {"group": "", "kind": "Service", "name": "cart"}, "controllerName": "ambit-mesh.io/controller", "conditions": [
				{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "m", "lastTransitionTime": null}]},
			{"parentRef": {"group": "", "kind": "Service", "namespace": "bank", "name": "gone"}, "controllerName": "ambit-mesh.io/controller", "conditions": [
				{"type": "Accepted", "status": "False", "reason": "NoMatchingParent", "message": "no", "lastTransitionTime": null}]}]
	}],
	"statuses": [
		{"object": {"kind": "Service", "namespace": "shop", "name": "cart"}, "status": {"conditions": [{"type": "WaypointBound", "status": "True", "reason": "Bound", "message": "m", "lastTransitionTime": null}]}}
	]
}`

func told(t *testing.T) *outcomes {
	t.Helper()
	var o outcomes
	if err := json.Unmarshal([]byte(toldByControlPlane), &o); err != nil {
		t.Fatal(err)
	}
	return &o
}

func TestRefusedRoutes(t *testing.T) {
	want := []control.Route{{Kind: "HTTPRoute", Namespace: "shop", Name: "cart", Parent: "Service bank/gone", Reason: "NoMatchingParent"}}
	if d := cmp.Diff(want, told(t).refusedRoutes()); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

// Objects are shown with the status that they would have in a cluster, and lose
// nothing of their own.
func TestStatusOfObjects(t *testing.T) {
	statuses := told(t).statuses()
	route := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart"}}
	raw, err := json.Marshal(route)
	if err != nil {
		t.Fatal(err)
	}
	key := manifest.Key{Group: gatewayv1.GroupName, Kind: "HTTPRoute", Namespace: "shop", Name: "cart"}
	if raw, err = addStatus(raw, statuses[key]); err != nil {
		t.Fatal(err)
	}
	var back gatewayv1.HTTPRoute
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	if len(back.Status.Parents) != 2 || back.Status.Parents[1].Conditions[0].Reason != "NoMatchingParent" || strings.Contains(string(raw), "lastTransitionTime") {
		t.Errorf("%s", raw)
	}
	service := json.RawMessage(`{"kind":"Service","status":{"loadBalancer":{"ingress":[{"ip":"10.0.0.1"}]}}}`)
	if service, err = addStatus(service, statuses[manifest.Key{Kind: "Service", Namespace: "shop", Name: "cart"}]); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(service), "10.0.0.1") || !strings.Contains(string(service), "WaypointBound") {
		t.Errorf("%s", service)
	}
}
