package kubernetes

import (
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/controlplane"
	"github.com/ambit-mesh/ambit/internal/testkit"
	"github.com/ambit-mesh/ambit/tests/cluster/apitest"
)

const serviceWeb = "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: NS}, spec: {ports: [{port: 80}]}}"

func in(namespace, object string) string { return strings.ReplaceAll(object, "NS", namespace) }

// told are objects and what is said of them; nothing of those without. Namespace bound
// has a waypoint and a Service web that uses it, namespace shop has a Service alone.
var told = []struct{ name, object, warns string }{
	{"a route without a waypoint", routeOf("HTTPRoute", "shop", "{group: '', kind: Service, name: web}"), "no waypoint serves"},
	{"a route with a waypoint", routeOf("HTTPRoute", "bound", "{group: '', kind: Service, name: web}"), ""},
	{"a route to nowhere", strings.ReplaceAll(routeOf("HTTPRoute", "bound", "{group: '', kind: Service, name: web}"), "[{name: web, port: 80}]", "[{name: gone, port: 80}]"), "gone"},
	{"a route of a Gateway", routeOf("HTTPRoute", "shop", "{name: edge}"), ""},
	{"a policy without a waypoint", policyOf("TimeoutPolicy", "shop", "targetRefs: [{kind: Service, name: web}], request: 1s"), "no waypoint"},
	{"a policy with a waypoint", policyOf("TimeoutPolicy", "bound", "targetRefs: [{kind: Service, name: web}], request: 1s"), ""},
	{"a policy of what is not there", policyOf("TimeoutPolicy", "bound", "targetRefs: [{kind: Service, name: gone}], request: 1s"), "gone"},
	{"a Service with a waypoint that is not there", "{apiVersion: v1, kind: Service, metadata: {name: s, namespace: shop, labels: {ambit-mesh.io/use-waypoint: gone}}, spec: {ports: [{port: 80}]}}", "there is no Gateway shop/gone"},
	{"a Service of nobody", "{apiVersion: v1, kind: Service, metadata: {name: s, namespace: shop, labels: {app: s}}, spec: {ports: [{port: 80}]}}", ""},
	{"a namespace in the mesh", "{apiVersion: v1, kind: Namespace, metadata: {name: space, labels: {ambit-mesh.io/dataplane-mode: ambient}}}", ""},
	{"a namespace with an annotation that has no effect", "{apiVersion: v1, kind: Namespace, metadata: {name: space, annotations: {ambit-mesh.io/dns-capture: perhaps}}}", `must be "true" or "false"`},
}

// TestWebhook has an API server ask a control plane.
func TestWebhook(t *testing.T) {
	s := apitest.Start(t)
	install(t, s, nil)
	kubectl(t, s, strings.Join([]string{
		"{apiVersion: v1, kind: Namespace, metadata: {name: shop}}",
		"{apiVersion: v1, kind: Namespace, metadata: {name: bound, labels: {ambit-mesh.io/use-waypoint: wp}}}",
		in("shop", serviceWeb), in("bound", serviceWeb),
		strings.Replace(gatewayHead, "namespace: shop", "namespace: bound", 1) + "name: wp}, spec: {gatewayClassName: ambit-waypoint, " + hbone + "}}",
	}, "\n---\n"), "apply", "--server-side", "-f", "-")

	cfg := config(t, s)
	cfg.WebhookAddress, cfg.ServingNames = "127.0.0.1:0", []string{controlplane.DefaultServingName, "127.0.0.1"}
	made, err := controlplane.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, made)
	ask(t, s, "https://"+r.WebhookAddr().String())
	testkit.Until(t, "the leader has said who the webhook is", func() bool {
		return strings.Contains(kubectl(t, s, "", "get", "validatingwebhookconfiguration", "findings.ambit-mesh.io", "-o", "yaml"), "caBundle: ")
	})
	dryRun := func(object string) (string, error) {
		return s.Kubectl(object, "apply", "--dry-run=server", "--server-side", "-f", "-")
	}
	// The API server reads its configuration a moment later.
	testkit.Until(t, "a warning", func() bool {
		out, err := dryRun(told[0].object)
		return err == nil && strings.Contains(out, told[0].warns)
	})
	for _, tc := range told {
		t.Run(tc.name, func(t *testing.T) {
			out, err := dryRun(tc.object)
			switch {
			case err != nil:
				t.Errorf("it must not be denied: %s", out)
			case tc.warns == "" && strings.Contains(out, "Warning:"):
				t.Errorf("nothing is to be said: %s", out)
			case tc.warns != "" && (!strings.Contains(out, "Warning: ambit: ") || !strings.Contains(out, tc.warns)):
				t.Errorf("it must be warned with %q: %s", tc.warns, out)
			}
		})
	}
	t.Run("all that is needed in one file", func(t *testing.T) {
		out := kubectl(t, s, strings.Join([]string{
			"{apiVersion: v1, kind: Namespace, metadata: {name: fresh, labels: {ambit-mesh.io/use-waypoint: wp}}}", in("fresh", serviceWeb),
			strings.Replace(gatewayHead, "namespace: shop", "namespace: fresh", 1) + "name: wp}, spec: {gatewayClassName: ambit-waypoint, " + hbone + "}}",
			routeOf("HTTPRoute", "fresh", "{group: '', kind: Service, name: web}"),
		}, "\n---\n"), "apply", "--server-side", "-f", "-")
		if strings.Contains(out, "no waypoint serves") {
			t.Errorf("%s", out)
		}
	})
	t.Run("what was only touched", func(t *testing.T) {
		kubectl(t, s, told[0].object, "apply", "--server-side", "-f", "-")
		if out := kubectl(t, s, told[0].object, "apply", "--server-side", "-f", "-"); strings.Contains(out, "Warning:") {
			t.Errorf("%s", out)
		}
	})
	t.Run("nobody is there to ask", func(t *testing.T) {
		r.stop()
		if out, err := dryRun(told[4].object); err != nil || strings.Contains(out, "Warning:") {
			t.Errorf("%v: %s", err, out)
		}
	})
}
