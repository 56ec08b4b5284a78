package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/tests/cluster/clustertest"
)

// testJourney enrols a running namespace, has it use a policy and a waypoint, and takes it out again, while requests go on
// across nodes of which none fails.
func testJourney(t *testing.T) {
	c := clustertest.Open(t)
	ns := c.Namespace("mesh")
	c.Apply(ns, echoApp("near", c.Nodes[0])+echoApp("other", c.Nodes[0])+echoApp("far", c.Nodes[1])+echoApp("far2", c.Nodes[1]))
	c.Ready(ns, "deploy/near", "deploy/other", "deploy/far", "deploy/far2")
	call := func(from, url string, args ...string) (string, error) {
		return c.Exec(ns, "deploy/"+from, append([]string{"client", url}, args...)...)
	}
	for _, from := range []string{"near", "other"} {
		c.Until(from+" reaches far", time.Minute, func() error { _, err := call(from, "http://far/"); return err })
	}

	load := c.Load(ns, "deploy/near", "http://far/")
	step(t, "enrol the running namespace")
	ambit(t, c, "enroll", ns)
	for _, p := range []string{"near", "other", "far", "far2"} {
		c.Must("-n", ns, "wait", "pod", "-l", "app="+p, "--for=condition=ambit-mesh.io/Captured", "--timeout=60s")
	}
	wire := c.Capture(c.Nodes[1], clustertest.Uplink, secret)
	c.Until("the link shows the tunnel and nothing of what was said", time.Minute, func() error {
		out, err := call("near", "http://far/x?say="+secret)
		if err != nil || !strings.Contains(out, "Hostname=far-") {
			return fmt.Errorf("%w\n%s", err, out)
		}
		if r := wire.Report(); r.Found[secret] != 0 || r.MeshBytes == 0 {
			return fmt.Errorf("found %v, mesh bytes %d", r.Found, r.MeshBytes)
		}
		return nil
	})

	step(t, "let near talk to far, and nobody else")
	c.Apply(ns, `
apiVersion: ambit-mesh.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: far}
spec:
  targetRefs: [{group: "", kind: Service, name: far}]
  action: ALLOW
  rules: [{name: near, sources: [{type: ServiceAccount, serviceAccount: {name: near}}]}]
`)
	c.Until("other is refused", time.Minute, func() error {
		if out, err := call("other", "http://far/"); err == nil {
			return fmt.Errorf("other was let in:\n%s", out)
		}
		return nil
	})
	if _, err := call("near", "http://far/"); err != nil {
		t.Errorf("near is refused: %v", err)
	}
	c.Condition(ns, "authorizationpolicy/far", "Accepted")

	step(t, "a waypoint, and a canary by header")
	ambit(t, c, "waypoint", "apply", "-n", ns)
	c.Condition(ns, "gateway/waypoint", "Programmed")
	c.Must("-n", ns, "label", "service", "far", "ambit-mesh.io/use-waypoint=waypoint")
	c.Apply(ns, `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: far}
spec:
  parentRefs: [{group: "", kind: Service, name: far}]
  rules:
  - name: testers
    matches: [{headers: [{name: x-group, value: testers}]}]
    backendRefs: [{name: far2, port: 80}]
  - name: everybody
    backendRefs: [{name: far, port: 80}]
`)
	c.Until("testers get the new version", time.Minute, func() error {
		out, err := call("near", "http://far/", "-H", "x-group:testers")
		if err == nil && !strings.Contains(out, "Hostname=far2-") {
			err = fmt.Errorf("somebody else has answered:\n%s", out)
		}
		return err
	})
	if out, err := call("near", "http://far/"); err != nil || !strings.Contains(out, "Hostname=far-") {
		t.Errorf("everybody else: %v\n%s", err, out)
	}
	if bound := c.Must("-n", ns, "get", "service", "far", "-o", `jsonpath={.status.conditions[?(@.type=="WaypointBound")].status}`); bound != "True" {
		t.Errorf("the service says WaypointBound=%q", bound)
	}

	step(t, "restart the control plane and the waypoint under load")
	c.Must("-n", "ambit-system", "rollout", "restart", "deploy/ambit-controlplane")
	c.Must("-n", ns, "rollout", "restart", "deploy/waypoint")
	c.Ready("ambit-system", "deploy/ambit-controlplane")
	c.Ready(ns, "deploy/waypoint")
	if _, err := call("near", "http://far/"); err != nil {
		t.Errorf("after the restarts: %v", err)
	}

	step(t, "take it out again; first the policy, which nobody without an identity satisfies")
	c.Must("-n", ns, "delete", "authorizationpolicy", "far")
	c.Must("-n", ns, "label", "service", "far", "ambit-mesh.io/use-waypoint-")
	ambit(t, c, "unenroll", ns)
	load.Stop()
	if _, err := call("near", "http://far/"); err != nil {
		t.Errorf("after leaving: %v", err)
	}
}
