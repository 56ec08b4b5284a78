package waypoint_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
)

// many is a Service in front of three replicas.
func many(name string) string {
	return strings.ReplaceAll(service(name, ""), "app: echo", "app: many")
}

// fallIll has the pod at that address answer everything with a status, until the
// test is over; 0 is well.
func (m *mesh) fallIll(pod string, status int) {
	m.t.Helper()
	if status != 0 {
		m.t.Cleanup(func() {
			out, err := m.command(context.Background(), "exec", "deploy/client", "-n", "app", "--", "/usr/bin/env", roleEnv+"=1", os.Args[0], "get", fmt.Sprintf("http://%s:8080/ill?status=0", pod)).CombinedOutput()
			if err != nil {
				m.t.Errorf("pod %s stays ill: %v\n%s", pod, err, out)
			}
		})
	}
	if r := m.get(fmt.Sprintf("http://%s:8080/ill?status=%d", pod, status)); r.Status != 200 {
		m.t.Fatalf("pod %s: %d %s", pod, r.Status, r.Error)
	}
}

// An endpoint that fails is left out for a while, and comes back.
func TestOutlierDetection(t *testing.T) {
	m := use(t)
	m.apply(many("outlier") + many("outlier-rpc") + policy("OutlierDetectionPolicy", "outlier", `
targetRefs: [{kind: Service, name: outlier}, {kind: Service, name: outlier-rpc}]
consecutiveFailures: 3
baseEjection: 15s
`) + policy("LoadBalancingPolicy", "outlier", `
targetRefs: [{kind: Service, name: outlier}, {kind: Service, name: outlier-rpc}]
algorithm: RoundRobin
`))
	r := m.until("all endpoints answer in turn", request{URL: "http://outlier/", Times: 30}, func(r response) bool { return len(r.Pods) == 3 && r.Statuses[200] == 30 })
	pod := r.Header.Get("x-pod")
	m.until("by gRPC, too", request{URL: "http://outlier-rpc/", Times: 30}, func(r response) bool { return len(r.Pods) == 3 })
	m.fallIll(pod, 503)
	got := m.ask(request{URL: "http://outlier/", Times: 40})[0]
	if n := got.Statuses[503]; n < 3 || n > 6 || got.Statuses[200] != 40-n {
		t.Errorf("with one of three endpoints ill: %v", got.Statuses)
	}
	m.counted("ambit_upstream_ejections_total", "outlier.app.svc.cluster.local")
	// Of gRPC it is the status in the trailers that tells.
	rpc := request{URL: "http://outlier-rpc/", Times: 40, Method: "POST", HTTP2: true, Header: map[string]string{"content-type": "application/grpc"}}
	if got := m.ask(rpc)[0]; got.Statuses[200] != 40 || got.Pods[pod] < 3 || got.Pods[pod] > 6 {
		t.Errorf("gRPC calls were sent to %v, of whom %s is ill", got.Pods, pod)
	}
	m.fallIll(pod, 0)
	m.until("the endpoint is back", request{URL: "http://outlier/", Times: 30}, func(r response) bool { return r.Pods[pod] == 10 && r.Statuses[200] == 30 })
}

// An endpoint that says it is ill gets no requests, though none has failed.
func TestHealthCheck(t *testing.T) {
	m := use(t)
	m.apply(many("checked") + policy("HealthCheckPolicy", "checked", `
targetRefs: [{kind: Service, name: checked}]
type: HTTP
http: {path: /healthz}
interval: 1s
timeout: 1s
unhealthyThreshold: 2
healthyThreshold: 1
`))
	r := m.until("all endpoints answer", request{URL: "http://checked/", Times: 30}, func(r response) bool { return len(r.Pods) == 3 && r.Statuses[200] == 30 })
	pod := r.Header.Get("x-pod")
	m.fallIll(pod, 500)
	m.until("the ill one is left out", request{URL: "http://checked/", Times: 30}, func(r response) bool { return r.Pods[pod] == 0 && r.Statuses[200] == 30 })
	m.fallIll(pod, 0)
	m.until("it is back", request{URL: "http://checked/", Times: 30}, func(r response) bool { return r.Pods[pod] > 0 && r.Statuses[200] == 30 })
}

// What is beyond a bound is answered at once, and the rest is not affected.
func TestCircuitBreaker(t *testing.T) {
	m := use(t)
	m.apply(service("bounded", "v1") + policy("CircuitBreakerPolicy", "bounded", `
targetRefs: [{kind: Service, name: bounded}]
maxRequests: 4
`) + service("queued", "v1") + policy("CircuitBreakerPolicy", "queued", `
targetRefs: [{kind: Service, name: queued}]
maxConnections: 2
maxPendingRequests: 3
`))
	burst := func(name string) request {
		return request{URL: "http://" + name + "/?delay=2000", Times: 10, Parallel: 10}
	}
	m.until("requests are bounded", burst("bounded"), func(r response) bool { return r.Statuses[200] == 4 && r.Statuses[503] == 6 })
	m.until("connections and those who wait for one are", burst("queued"), func(r response) bool { return r.Statuses[200] == 5 && r.Statuses[503] == 5 })
	if got := m.ask(request{URL: "http://bounded/", Times: 10}, request{URL: "http://queued/", Times: 10}); got[0].Statuses[200] != 10 || got[1].Statuses[200] != 10 {
		t.Errorf("within the bounds: %v, %v", got[0].Statuses, got[1].Statuses)
	}
	m.logged(`"dst.service":"bounded.app.svc.cluster.local"`, `"response_flags":"UO"`, `"status":503`)
	m.counted("ambit_upstream_overflow_total", "bounded.app", "requests")
}
