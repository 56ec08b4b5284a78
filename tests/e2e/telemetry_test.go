package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/tests/cluster/clustertest"
	"github.com/ambit-mesh/ambit/tests/cluster/definitions"
)

const telemetry = `
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XTelemetryPolicy
metadata: {name: spans}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}]
  tracing: {mode: Enabled, samplingRate: {numerator: 100}, provider: {backendRef: {name: collector, port: 7070}}, serviceName: of-the-waypoint, spanName: a request}
`

// testTelemetry has the Gateway of a waypoint say where spans go (GEP-4768), to a collector in the mesh. Its definition comes
// when the mesh is at work, and goes before it.
func testTelemetry(t *testing.T) {
	c := clustertest.Open(t)
	c.Apply("", definitions.XTelemetryPolicy)
	c.Must("wait", "--for=condition=Established", "crd", "xtelemetrypolicies.gateway.networking.x-k8s.io", "--timeout=60s")
	e := enrol(t, c, "telemetry", []string{"near@" + c.Nodes[0], "far@" + c.Nodes[1], "collector@" + c.Nodes[1]})
	e.waypoint(t)
	c.Apply(e.ns, telemetry)
	wire := c.Capture(c.Nodes[1], clustertest.Uplink, secret)
	for _, condition := range []string{"Accepted", "ResolvedRefs"} {
		c.Must("-n", e.ns, "wait", "xtelemetrypolicy/spans", `--for=jsonpath={.status.ancestors[0].conditions[?(@.type=="`+condition+`")].status}=True`, "--timeout=60s")
	}
	// The waypoint has heard of the policy some time after its status, and each question is a span, too.
	asked := 0
	c.Until("the collector has a span", time.Minute, func() error {
		if _, err := e.call("near", "http://far/?say="+secret); err != nil {
			return err
		}
		asked++
		out, err := e.call("near", "http://collector/?key=of-the-waypoint/a+request&say="+secret)
		if err == nil && seen(out) <= asked {
			err = fmt.Errorf("it has %d, of which %d were this question", seen(out), asked)
		}
		return err
	})
	c.Must("-n", e.ns, "delete", "xtelemetrypolicy", "spans")
	sealed(t, wire)
}
