package kubernetes

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/controlplane"
	"github.com/ambit-mesh/ambit/internal/testkit"
	"github.com/ambit-mesh/ambit/tests/cluster/apitest"
	"github.com/ambit-mesh/ambit/tests/cluster/definitions"
)

// TestDefinitionsComeLater: a control plane that has begun without any definition takes up
// the standard channel's when they come, works with those alone, and takes up what of the
// experimental channel comes beside them; it is not started again for any.
func TestDefinitionsComeLater(t *testing.T) {
	s := apitest.Start(t)
	kubectl(t, s, mesh, "apply", "-f", "-")
	kubectl(t, s, "", "label", "ns", "shop", "ambit-mesh.io/use-waypoint=wp")
	cfg := config(t, s)
	cfg.WaypointImage = "ambit/waypoint:1"
	made, err := controlplane.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, made)
	testkit.Until(t, "the mesh is told without definitions", func() bool { return r.tells("Pod/shop/web", "web") || r.tells("shop/web", "web") })

	experimental := gatewayAPI(t)
	kubectl(t, s, "", "apply", "--server-side", "-f", filepath.Join(filepath.Dir(experimental), "standard"))
	kubectl(t, s, "", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	wait := func(namespace, object, path, value string) {
		t.Helper()
		if out, err := s.Kubectl("", "wait", "-n", namespace, object, "--for=jsonpath="+path+"="+value, "--timeout=90s"); err != nil {
			t.Errorf("%s: %s %v", object, out, err)
		}
	}
	kubectl(t, s, "{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: ambit-waypoint}, spec: {controllerName: ambit-mesh.io/controller}}\n---\n"+
		gatewayHead+"name: wp}, spec: {gatewayClassName: ambit-waypoint, "+hbone+"}}\n---\n"+
		routeOf("HTTPRoute", "shop", "{group: '', kind: Service, name: web}")+"\n---\n"+
		strings.Replace(routeOf("GRPCRoute", "shop", "{group: '', kind: Service, name: web}"), "name: r", "name: g", 1), "apply", "-f", "-")
	wait("shop", "gatewayclass/ambit-waypoint", `{.status.conditions[?(@.type=="Accepted")].status}`, "True")
	wait("shop", "deployment/wp", "{.spec.template.spec.serviceAccountName}", "wp")
	wait("shop", "httproute/r", `{.status.parents[0].controllerName}`, "ambit-mesh.io/controller")
	wait("shop", "grpcroute/g", `{.status.parents[0].controllerName}`, "ambit-mesh.io/controller")

	kubectl(t, s, "", "apply", "--server-side", "-f", filepath.Join(experimental, "gateway.networking.x-k8s.io_xmeshes.yaml"))
	kubectl(t, s, "", "wait", "--for=condition=Established", "crd", "xmeshes.gateway.networking.x-k8s.io", "--timeout=60s")
	kubectl(t, s, "{apiVersion: gateway.networking.x-k8s.io/v1alpha1, kind: XMesh, metadata: {name: ambit}, spec: {controllerName: ambit-mesh.io/controller}}", "apply", "-f", "-")
	wait("shop", "xmesh/ambit", `{.status.conditions[?(@.type=="Accepted")].status}`, "True")
	kubectl(t, s, definitions.XTelemetryPolicy, "apply", "-f", "-")
	kubectl(t, s, "", "wait", "--for=condition=Established", "crd", "xtelemetrypolicies.gateway.networking.x-k8s.io", "--timeout=60s")
	kubectl(t, s, "{apiVersion: gateway.networking.x-k8s.io/v1alpha1, kind: XTelemetryPolicy, metadata: {name: spans, namespace: shop}, spec: {"+
		"targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: wp}], "+
		"tracing: {mode: Enabled, provider: {backendRef: {name: nosuch, port: 4317}}}}}", "apply", "-f", "-")
	wait("shop", "xtelemetrypolicy/spans", `{.status.ancestors[0].conditions[?(@.type=="Accepted")].status}`, "True")
	wait("shop", "xtelemetrypolicy/spans", `{.status.ancestors[0].conditions[?(@.type=="ResolvedRefs")].reason}`, "BackendNotFound")
}
