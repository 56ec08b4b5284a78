package kubernetes_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/controlplane"
	"github.com/ambit-mesh/ambit/controlplane/kubernetes"
	"github.com/ambit-mesh/ambit/tests/cluster/apitest"
)

const leaderWorld = `
apiVersion: v1
kind: Namespace
metadata: {name: ambit-system}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {ambit-mesh.io/use-waypoint: wp}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: ambit-waypoint}
spec: {controllerName: ambit-mesh.io/controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: shop, annotations: {ambit-mesh.io/waypoint-replicas: "2"}}
spec: {gatewayClassName: ambit-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{name: http, port: 80}], selector: {app: web}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec: {parentRefs: [{group: "", kind: Service, name: web}, {name: edge}], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
apiVersion: ambit-mesh.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec: {targetRefs: [{group: "", kind: Service, name: nowhere}], action: ALLOW}
---
apiVersion: v1
kind: Service
metadata: {name: taken, namespace: shop}
spec: {ports: [{port: 1}], selector: {app: mine}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: taken, namespace: shop}
spec: {gatewayClassName: ambit-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
`

const theirParents = `{"status":{"parents":[{"controllerName":"example.com/other","parentRef":{"name":"edge"},"conditions":[{"type":"Accepted","status":"True","reason":"Accepted","message":"theirs","lastTransitionTime":"2020-01-01T00:00:00Z"}]}]}}`

// TestLeader has a control plane lead on a real API server: every kind's status,
// another controller's entry, what is made for waypoints, repaired and pruned, and
// what is somebody's own.
func TestLeader(t *testing.T) {
	s := apitest.Start(t)
	kubectl := func(stdin string, args ...string) string {
		t.Helper()
		out, err := s.Kubectl(stdin, args...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	wait := func(object, path, value string) {
		t.Helper()
		kubectl("", "wait", "-n", "shop", object, "--for=jsonpath="+path+"="+value, "--timeout=60s")
	}
	out, err := goList("sigs.k8s.io/gateway-api")
	if err != nil {
		t.Fatal(err)
	}
	kubectl("", "apply", "--server-side", "-k", filepath.Join(out, "config", "crd", "experimental"))
	kubectl("", "apply", "--server-side", "-f", filepath.Join("..", "..", "manifests", "crds"))
	kubectl("", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	kubectl(leaderWorld, "apply", "--server-side", "-f", "-")
	kubectl("", "patch", "-n", "shop", "httproute", "r", "--subresource=status", "--type=merge", "-p", theirParents)

	c, err := controlplane.New(controlplane.Config{
		Source: controlplane.SourceKubernetes, Kubernetes: kubernetes.New, Kubeconfig: s.Kubeconfig, WaypointImage: "ambit/waypoint:1",
		XDSAddress: "127.0.0.1:0", AdminAddress: "127.0.0.1:0", MetricsAddress: "127.0.0.1:0", ReadyAddress: "127.0.0.1:0",
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()

	wait("gatewayclass/ambit-waypoint", `{.status.conditions[?(@.type=="Accepted")].status}`, "True")
	wait("gateway/wp", `{.status.conditions[?(@.type=="Accepted")].status}`, "True")
	wait("gateway/wp", `{.status.conditions[?(@.type=="Programmed")].reason}`, "NoResources")
	wait("gateway/wp", `{.status.addresses[0].value}`, "wp.shop.svc.cluster.local")
	wait("gateway/wp", `{.status.listeners[0].attachedRoutes}`, "1")
	wait("service/web", `{.status.conditions[?(@.type=="WaypointBound")].reason}`, "WaypointNotReady")
	wait("authorizationpolicy/p", `{.status.conditions[0].reason}`, "TargetNotFound")
	wait("httproute/r", `{.status.parents[1].conditions[0].status}`, "True")
	if got := kubectl("", "get", "-n", "shop", "httproute", "r", "-o", "jsonpath={.status.parents[0].controllerName} {.status.parents[0].conditions[0].message} {.status.parents[0].conditions[0].lastTransitionTime}"); got != "example.com/other theirs 2020-01-01T00:00:00Z" {
		t.Errorf("the other controller's entry: %s", got)
	}
	// What is somebody's own stays, and the Gateway says so.
	wait("gateway/taken", `{.status.conditions[?(@.type=="Programmed")].reason}`, "Invalid")
	if got := kubectl("", "get", "-n", "shop", "gateway", "taken", "-o", "jsonpath={.status.conditions[?(@.type==\"Programmed\")].message}"); !strings.Contains(got, "Service shop/taken") {
		t.Errorf("message %q", got)
	}
	if got := kubectl("", "get", "-n", "shop", "service", "taken", "-o", "jsonpath={.spec.selector.app}{.spec.ports[0].port}{.metadata.labels}"); got != "mine1" {
		t.Errorf("somebody's Service was changed: %s", got)
	}
	// Edits of what is the mesh's are repaired, what others add stays.
	wait("poddisruptionbudget/wp", "{.spec.maxUnavailable}", "1")
	kubectl("", "patch", "-n", "shop", "deployment", "wp", "--type=merge", "-p", `{"metadata":{"annotations":{"mine":"kept"}},"spec":{"replicas":7}}`)
	wait("deployment/wp", "{.spec.replicas}", "2")
	if got := kubectl("", "get", "-n", "shop", "deployment", "wp", "-o", "jsonpath={.metadata.annotations.mine}"); got != "kept" {
		t.Errorf("annotation of somebody else: %q", got)
	}
	kubectl("", "delete", "-n", "shop", "serviceaccount", "wp")
	kubectl("", "wait", "-n", "shop", "serviceaccount/wp", "--for=create", "--timeout=60s")
	// Fewer replicas need no budget.
	kubectl("", "annotate", "-n", "shop", "gateway", "wp", "ambit-mesh.io/waypoint-replicas=1", "--overwrite")
	kubectl("", "wait", "-n", "shop", "poddisruptionbudget/wp", "--for=delete", "--timeout=60s")
	// The label alone still asks for it; without both it goes.
	kubectl("", "label", "namespace", "shop", "ambit-mesh.io/use-waypoint-")
	kubectl("", "delete", "-n", "shop", "gateway", "wp")
	for _, kind := range []string{"deployment", "service", "serviceaccount"} {
		kubectl("", "wait", "-n", "shop", kind+"/wp", "--for=delete", "--timeout=60s")
	}
	// Events are where a person looks.
	if got := kubectl("", "get", "events.events.k8s.io", "-n", "shop", "-o", "jsonpath={.items[*].reason}"); !strings.Contains(got, "TargetNotFound") {
		t.Errorf("events %q", got)
	}
	// A node that is younger than the mesh is tainted.
	kubectl("{apiVersion: v1, kind: Node, metadata: {name: fresh}}", "apply", "-f", "-")
	kubectl("", "wait", "node/fresh", "--for=jsonpath={.spec.taints[?(@.key==\"ambit-mesh.io/agent-not-ready\")].effect}=NoSchedule", "--timeout=60s")
}
