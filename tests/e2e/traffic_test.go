package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/tests/cluster/clustertest"
)

const traffic = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: far}
spec:
  parentRefs: [{group: "", kind: Service, name: far}]
  rules:
  - name: split
    matches: [{path: {type: PathPrefix, value: /split}}]
    backendRefs: [{name: far, port: 80, weight: 80}, {name: far2, port: 80, weight: 20}]
  - name: retried
    matches: [{path: {type: PathPrefix, value: /retried}}]
    retry: {codes: [503], attempts: 2, backoff: 10ms}
    backendRefs: [{name: far, port: 80}]
  - name: mirrored
    matches: [{path: {type: PathPrefix, value: /mirrored}}]
    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: far2, port: 80}}}]
    backendRefs: [{name: far, port: 80}]
  - name: limited
    matches: [{path: {type: PathPrefix, value: /limited}}]
    backendRefs: [{name: far, port: 80}]
  - name: others
    backendRefs: [{name: far, port: 80}]
---
apiVersion: ambit-mesh.io/v1alpha1
kind: FaultInjection
metadata: {name: far}
spec:
  targetRefs: [{kind: Service, name: far}]
  rules:
  - name: broken
    matches: [{headers: [{name: x-chaos, value: "1"}]}]
    abort: {httpStatus: 418}
  - name: slow
    matches: [{headers: [{name: x-chaos, value: "2"}]}]
    delay: {duration: 30s}
---
apiVersion: ambit-mesh.io/v1alpha1
kind: RateLimitPolicy
metadata: {name: far}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: far, sectionName: limited}]
  rules: [{requests: 3, unit: Hour}]
`

// testTraffic has a waypoint split, retry, copy, disturb and limit requests, by nothing but manifests.
func testTraffic(t *testing.T) {
	c := clustertest.Open(t)
	e := enrol(t, c, "traffic", []string{"near@" + c.Nodes[0], "far@" + c.Nodes[1], "far2@" + c.Nodes[1]})
	e.waypoint(t)
	c.Apply(e.ns, traffic)
	wire := c.Capture(c.Nodes[1], clustertest.Uplink, secret)
	e.eventually("near", "http://far/split?say="+secret, "Hostname=far2-", "--count=20")

	out, err := e.call("near", "http://far/split?say="+secret, "--count=300")
	old, canary := strings.Count(out, "Hostname=far-"), strings.Count(out, "Hostname=far2-")
	// Six standard deviations of a fifth of 300.
	if err != nil || old+canary != 300 || canary < 18 || canary > 102 {
		t.Errorf("a fifth is to go to the canary: %d of %d do (%v)", canary, old+canary, err)
	}

	out, err = e.call("near", "http://far/retried?key=retried&first=2&status=503&say="+secret)
	if err != nil || !strings.Contains(out, "StatusCode=200") || seen(out) != 3 {
		t.Errorf("what fails twice is to be tried a third time: %v\n%s", err, out)
	}
	out, err = e.call("near", "http://far/other?key=other&first=2&status=503&say="+secret)
	if err != nil || !strings.Contains(out, "StatusCode=503") || seen(out) != 1 {
		t.Errorf("a rule that says nothing of it does not retry: %v\n%s", err, out)
	}

	out, err = e.call("near", "http://far/mirrored?key=mirrored&say="+secret)
	if err != nil || !strings.Contains(out, "Hostname=far-") || seen(out) != 1 {
		t.Errorf("the request that is copied: %v\n%s", err, out)
	}
	asked := 0
	c.Until("the copy arrives", time.Minute, func() error {
		asked++
		out, err := e.call("near", "http://far2/?key=mirrored&say="+secret)
		if err == nil && seen(out) <= asked {
			err = fmt.Errorf("far2 has seen it %d times, of which %d were this question", seen(out), asked)
		}
		return err
	})

	e.eventually("near", "http://far/?say="+secret, "StatusCode=418", "-H", "x-chaos:1")
	if out, err := e.call("near", "http://far/?say="+secret, "-H", "x-chaos:2", "--timeout=2s"); err == nil {
		t.Errorf("a delay of 30 s is over before 2:\n%s", out)
	}
	e.eventually("near", "http://far/limited?say="+secret, "StatusCode=429")
	if out, err := e.call("near", "http://far/limited?say="+secret, "--count=3"); err != nil || strings.Count(out, "StatusCode=429") != 3 {
		t.Errorf("beyond the limit: %v\n%s", err, out)
	}
	if out, err := e.call("near", "http://far/?say="+secret); err != nil || !strings.Contains(out, "StatusCode=200") {
		t.Errorf("another rule is not limited: %v\n%s", err, out)
	}
	sealed(t, wire)
}
