package kubernetes

import (
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/testkit"
	"github.com/ambit-mesh/ambit/tests/cluster/apitest"
)

const (
	gatewayHead = "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {namespace: shop, "
	hbone       = "listeners: [{name: mesh, port: 15008, protocol: HBONE}]"
	podSpec     = "containers: [{name: c, image: i}]"
)

func routeOf(kind, namespace, parent string) string {
	return "{apiVersion: gateway.networking.k8s.io/v1, kind: " + kind + ", metadata: {name: r, namespace: " + namespace + "}, spec: {parentRefs: [" + parent + "], rules: [{backendRefs: [{name: web, port: 80}]}]}}"
}

func policyOf(kind, namespace, spec string) string {
	return "{apiVersion: ambit-mesh.io/v1alpha1, kind: " + kind + ", metadata: {name: p, namespace: " + namespace + "}, spec: {" + spec + "}}"
}

// admissions say of objects what the API server says: what it warns of, or why it
// denies them. Without either nothing is said. Namespace shop is bound to no
// waypoint, and namespace bound is.
var admissions = []struct{ name, object, warns, denies string }{
	{"a namespace in the mesh", "{apiVersion: v1, kind: Namespace, metadata: {name: space, labels: {ambit-mesh.io/dataplane-mode: ambient}}}", "", ""},
	{"a namespace out of the mesh", "{apiVersion: v1, kind: Namespace, metadata: {name: space, labels: {ambit-mesh.io/dataplane-mode: none}}}", "", ""},
	{"a namespace that has nothing to do with it", "{apiVersion: v1, kind: Namespace, metadata: {name: space}}", "", ""},
	{"a mode that there is not", "{apiVersion: v1, kind: Namespace, metadata: {name: space, labels: {ambit-mesh.io/dataplane-mode: enabled}}}", "", `"enabled" is not a mode: write ambient or none`},
	{"an empty waypoint", "{apiVersion: v1, kind: Namespace, metadata: {name: space, labels: {ambit-mesh.io/use-waypoint: ''}}}", "is empty and has no effect", ""},
	{"the namespace of no waypoint", "{apiVersion: v1, kind: Namespace, metadata: {name: space, labels: {ambit-mesh.io/use-waypoint-namespace: infra}}}", "has no effect without the label ambit-mesh.io/use-waypoint", ""},

	{"a pod", "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: shop, labels: {ambit-mesh.io/dataplane-mode: ambient}}, spec: {" + podSpec + "}}", "", ""},
	{"a pod on the node's network", "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: shop, labels: {ambit-mesh.io/dataplane-mode: ambient}}, spec: {hostNetwork: true, " + podSpec + "}}", "no effect with hostNetwork", ""},
	{"a pod of an unknown mode", "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: shop, labels: {ambit-mesh.io/dataplane-mode: 'on'}}, spec: {" + podSpec + "}}", "is not a mode and has no effect", ""},
	{"a Deployment on the node's network", "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d, namespace: shop}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b, ambit-mesh.io/dataplane-mode: ambient}}, spec: {hostNetwork: true, " + podSpec + "}}}}", "no effect with hostNetwork", ""},
	{"a Deployment", "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d, namespace: shop}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {" + podSpec + "}}}}", "", ""},
	{"a Job without labels", "{apiVersion: batch/v1, kind: Job, metadata: {name: j, namespace: shop}, spec: {template: {spec: {restartPolicy: Never, " + podSpec + "}}}}", "", ""},
	{"a Service with a mode", "{apiVersion: v1, kind: Service, metadata: {name: s, namespace: shop, labels: {ambit-mesh.io/dataplane-mode: ambient}}, spec: {ports: [{port: 80}]}}", "no effect on a Service", ""},
	{"a Service with a waypoint", "{apiVersion: v1, kind: Service, metadata: {name: s, namespace: shop, labels: {ambit-mesh.io/use-waypoint: wp}}, spec: {ports: [{port: 80}]}}", "", ""},

	{"a waypoint", gatewayHead + "name: wp, labels: {ambit-mesh.io/waypoint-for: all}, annotations: {ambit-mesh.io/waypoint-replicas: '2'}}, spec: {gatewayClassName: ambit-waypoint, " + hbone + "}}", "", ""},
	{"a waypoint with parameters", gatewayHead + "name: wp}, spec: {gatewayClassName: ambit-waypoint, infrastructure: {parametersRef: {group: '', kind: ConfigMap, name: c}}, " + hbone + "}}", "", ""},
	{"a waypoint without its listener", gatewayHead + "name: wp}, spec: {gatewayClassName: ambit-waypoint, listeners: [{name: http, port: 80, protocol: HTTP}]}}", "", "a waypoint needs a listener with protocol: HBONE and port: 15008"},
	{"a waypoint for nothing that there is", gatewayHead + "name: wp, labels: {ambit-mesh.io/waypoint-for: pods}}, spec: {gatewayClassName: ambit-waypoint, " + hbone + "}}", "", "use service, workload, all or none"},
	{"a name that no Service can have", gatewayHead + "name: 2.wp}, spec: {gatewayClassName: ambit-waypoint, " + hbone + "}}", "", "cannot be the name of the waypoint's Service"},
	{"replicas that are no number", gatewayHead + "name: wp, annotations: {ambit-mesh.io/waypoint-replicas: two}}, spec: {gatewayClassName: ambit-waypoint, " + hbone + "}}", "", "is not a number of replicas"},
	{"replicas of the infrastructure count first", gatewayHead + "name: wp, annotations: {ambit-mesh.io/waypoint-replicas: two}}, spec: {gatewayClassName: ambit-waypoint, infrastructure: {annotations: {ambit-mesh.io/waypoint-replicas: '2'}}, " + hbone + "}}", "", ""},
	{"parameters of another kind", gatewayHead + "name: wp}, spec: {gatewayClassName: ambit-waypoint, infrastructure: {parametersRef: {group: example.com, kind: Sizes, name: c}}, " + hbone + "}}", "", "name a ConfigMap"},
	{"somebody else's Gateway", gatewayHead + "name: 2.gw, labels: {ambit-mesh.io/waypoint-for: pods}}, spec: {gatewayClassName: other, listeners: [{name: http, port: 80, protocol: HTTP}]}}", "", ""},

	{"a route without a waypoint", routeOf("HTTPRoute", "shop", "{group: '', kind: Service, name: web}"), "namespace shop is bound to no waypoint: the route takes effect only", ""},
	{"a gRPC route without a waypoint", routeOf("GRPCRoute", "shop", "{group: '', kind: Service, name: web}"), "is bound to no waypoint", ""},
	{"a route with a waypoint", routeOf("HTTPRoute", "bound", "{group: '', kind: Service, name: web}"), "", ""},
	{"a consumer's route", routeOf("HTTPRoute", "shop", "{group: '', kind: Service, name: web, namespace: bound}"), "", ""},
	{"a route of a Gateway", routeOf("HTTPRoute", "shop", "{name: edge}"), "", ""},
	{"a UDP route", routeOf("UDPRoute", "bound", "{group: '', kind: Service, name: web}"), "", ""},
	{"a UDP route without a waypoint", routeOf("UDPRoute", "shop", "{group: '', kind: Service, name: web}"), "is bound to no waypoint", ""},
	{"a UDP route of a Gateway", routeOf("UDPRoute", "shop", "{name: edge}"), "", ""},

	{"a policy of connections", policyOf("AuthorizationPolicy", "shop", "targetRefs: [{kind: Namespace}], action: ALLOW"), "", ""},
	{"a policy of requests without a waypoint", policyOf("AuthorizationPolicy", "shop", "targetRefs: [{kind: Service, name: web}], action: ALLOW, enforcementLevel: Application, rules: [{application: {methods: [GET]}}]"), "is bound to no waypoint, which alone carries this out", ""},
	{"a policy of requests", policyOf("AuthorizationPolicy", "bound", "targetRefs: [{kind: Service, name: web}], action: ALLOW, enforcementLevel: Application, rules: [{application: {methods: [GET]}}]"), "", ""},
	{"a timeout without a waypoint", policyOf("TimeoutPolicy", "shop", "targetRefs: [{kind: Service, name: web}], request: 1s"), "is bound to no waypoint", ""},
	{"mTLS needs none", policyOf("PeerAuthentication", "shop", "targetRefs: [{kind: Namespace}], mtls: {mode: STRICT}"), "", ""},
	{"another class of the mesh", "{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: mine}, spec: {controllerName: ambit-mesh.io/controller}}", "the mesh has one class", ""},
	{"a class of somebody else", "{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: theirs}, spec: {controllerName: example.com/c}}", "", ""},
}

// TestAdmission has an API server say what the chart's policies say, without the webhook.
func TestAdmission(t *testing.T) {
	s := apitest.Start(t)
	install(t, s, map[string]any{"admission": map[string]any{"webhook": false}})
	kubectl(t, s, `{"apiVersion": "v1", "kind": "List", "items": [
		{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
		{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bound", "labels": {"ambit-mesh.io/use-waypoint": "wp"}}}]}`, "apply", "-f", "-")
	dryRun := func(object string) (string, error) {
		return s.Kubectl(object, "apply", "--dry-run=server", "--server-side", "-f", "-")
	}
	// Policies are in force a moment after they are there; the last of each kind is waited for.
	for _, object := range []string{
		admissions[3].object, admissions[4].object, routeOf("HTTPRoute", "shop", "{group: '', kind: Service, name: web}"),
		policyOf("TimeoutPolicy", "shop", "targetRefs: [{kind: Service, name: web}], request: 1s"),
		gatewayHead + "name: wp}, spec: {gatewayClassName: ambit-waypoint, listeners: [{name: http, port: 80, protocol: HTTP}]}}",
		"{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: mine}, spec: {controllerName: ambit-mesh.io/controller}}",
	} {
		var out string
		t.Cleanup(func() {
			if t.Failed() {
				t.Log(out)
			}
		})
		testkit.Until(t, "a policy in force: "+object, func() bool {
			out, _ = dryRun(object)
			return strings.Contains(out, "ValidatingAdmissionPolicy")
		})
	}
	for _, tc := range admissions {
		t.Run(tc.name, func(t *testing.T) {
			out, err := dryRun(tc.object)
			switch {
			case tc.denies != "":
				if err == nil || !strings.Contains(out, tc.denies) || !strings.Contains(out, "denied request") {
					t.Errorf("it must be denied with %q: %s", tc.denies, out)
				}
			case err != nil:
				t.Errorf("it must not be denied: %s", out)
			case tc.warns == "" && strings.Contains(out, "Warning:"):
				t.Errorf("nothing is to be said: %s", out)
			case !strings.Contains(out, tc.warns):
				t.Errorf("it must be warned with %q: %s", tc.warns, out)
			}
		})
	}
}

// TestAdmissionLeavesWhatIsThere: what was written before the policies can be edited
// and deleted, however wrong it is.
func TestAdmissionLeavesWhatIsThere(t *testing.T) {
	s := apitest.Start(t)
	kubectl(t, s, "{apiVersion: v1, kind: Namespace, metadata: {name: old, labels: {ambit-mesh.io/dataplane-mode: enabled}}}", "apply", "-f", "-")
	install(t, s, nil)
	testkit.Until(t, "policies in force", func() bool {
		out, err := s.Kubectl(admissions[3].object, "apply", "--dry-run=server", "-f", "-")
		return err != nil && strings.Contains(out, admissions[3].denies)
	})
	kubectl(t, s, "", "annotate", "ns", "old", "touched=yes")
	if out, err := s.Kubectl("", "label", "ns", "old", "--overwrite", "ambit-mesh.io/dataplane-mode=disabled"); err == nil {
		t.Errorf("another wrong mode was taken: %s", out)
	}
	kubectl(t, s, "", "label", "ns", "old", "--overwrite", "ambit-mesh.io/dataplane-mode=ambient")
}
