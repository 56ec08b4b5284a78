package waypoint_test

import (
	"testing"
	"time"
)

// Faults happen to the origins, headers and versions that they are for, in their
// share, and to no others.
func TestFaultInjection(t *testing.T) {
	m := use(t)
	m.apply(service("faulty", "") + service("faulty-v1", "v1") + service("faulty-v2", "v2") + route("faulty", "faulty", `
  - matches: [{path: {value: /v2}}]
    backendRefs: [{name: faulty-v2, port: 80}]
  - backendRefs: [{name: faulty-v1, port: 80}]
`) + policy("FaultInjection", "faulty", `
targetRefs: [{kind: Service, name: faulty}]
rules:
- name: slow
  sources: [{namespace: app, serviceAccount: tester}]
  delay: {duration: 3s}
- name: broken
  matches: [{headers: [{name: x-chaos, value: "1"}]}]
  abort: {httpStatus: 418, grpcStatus: DATA_LOSS}
- name: half
  matches: [{headers: [{name: x-half, value: "1"}]}]
  abort: {httpStatus: 507, fraction: {numerator: 1, denominator: 2}}
- name: version
  backends: [{name: faulty-v2}]
  abort: {httpStatus: 521}
`))
	chaos := map[string]string{"x-chaos": "1"}
	m.until("faults are in force", request{URL: "http://faulty/", Header: chaos}, status(418))
	m.until("the route is in force", request{URL: "http://faulty/v2"}, status(521))
	grpc := map[string]string{"x-chaos": "1", "content-type": "application/grpc"}
	got := m.ask(
		request{URL: "http://faulty/", Times: 10},
		request{URL: "http://faulty/", Header: grpc, Method: "POST", HTTP2: true},
		request{URL: "http://faulty/", Header: map[string]string{"x-half": "1"}, Times: 400},
		request{URL: "http://faulty/key?key=fault", Header: chaos}, request{URL: "http://faulty/key?key=fault"},
	)
	if got[0].Statuses[200] != 10 || got[0].Took >= 3*time.Second {
		t.Errorf("what no fault is for: %v, the last in %s", got[0].Statuses, got[0].Took)
	}
	if got[1].Status != 200 || got[1].Header.Get("grpc-status") != "15" {
		t.Errorf("an aborted gRPC call: %d %v", got[1].Status, got[1].Header)
	}
	if n := got[2].Statuses[507]; n < 140 || n > 260 || got[2].Statuses[200] != 400-n {
		t.Errorf("of 400 with a fault for one in two: %v", got[2].Statuses)
	}
	if got[3].Status != 418 || got[4].Seen.Count != 1 {
		t.Errorf("an aborted request was seen by the backend: %d, %d", got[3].Status, got[4].Seen.Count)
	}
	if r := m.askFrom("tester", request{URL: "http://faulty/"})[0]; r.Status != 200 || r.Took < 3*time.Second {
		t.Errorf("the delayed origin: %d in %s", r.Status, r.Took)
	}
	m.logged(`"fault":"faulty"`, `"status":418`, `"response_flags":"FI"`)
	m.logged(`"fault":"faulty"`, `"status":200`, `"response_flags":"DI"`)
}
