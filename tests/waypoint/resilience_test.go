package waypoint_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestRetry(t *testing.T) {
	m := use(t)
	m.apply(service("flaky", "v1") + route("flaky", "flaky", `
  - matches: [{path: {value: /retried}}]
    retry: {codes: [503], attempts: 3, backoff: 10ms}
    backendRefs: [{name: flaky, port: 80}]
  - matches: [{path: {value: /once}}]
    backendRefs: [{name: flaky, port: 80}]
`))
	m.until("the route is in force", request{URL: "http://flaky/neither"}, status(404))
	got := m.ask(
		request{URL: "http://flaky/retried?key=a&fail=2"},
		request{URL: "http://flaky/retried?key=b&fail=9"},
		request{URL: "http://flaky/once?key=c&fail=1"},
		request{URL: "http://flaky/retried?key=d&fail=2", Method: "PUT", Body: 20000},
		request{URL: "http://flaky/retried?key=e&fail=2", Method: "PUT", Body: 1 << 20},
		request{URL: "http://flaky/retried?key=f&fail=2", Method: "POST", Body: 20000},
	)
	for i, want := range []struct{ status, count int }{{200, 3}, {503, 4}, {503, 1}, {200, 3}, {503, 1}, {503, 1}} {
		if got[i].Status != want.status || got[i].Seen.Count != want.count {
			t.Errorf("request %d: status %d after %d tries, want %d after %d", i, got[i].Status, got[i].Seen.Count, want.status, want.count)
		}
	}
	if got[3].Seen.Size != 20000 {
		t.Errorf("the retried body had %d bytes", got[3].Seen.Size)
	}
	m.logged(`"path":"/retried"`, `"attempts":3`, `"status":200`)
}

func TestTimeouts(t *testing.T) {
	m := use(t)
	m.apply(service("slow", "v1") + route("slow", "slow", `
  - matches: [{path: {value: /bounded}}]
    timeouts: {request: 2s}
    backendRefs: [{name: slow, port: 80}]
  - matches: [{path: {value: /free}}]
    backendRefs: [{name: slow, port: 80}]
`))
	m.until("the route is in force", request{URL: "http://slow/neither"}, status(404))
	got := m.ask(request{URL: "http://slow/bounded?delay=60000"}, request{URL: "http://slow/bounded?delay=1"}, request{URL: "http://slow/free?delay=3000"})
	if got[0].Status != 504 || got[0].Took >= time.Minute {
		t.Errorf("a slow answer: %d after %s", got[0].Status, got[0].Took)
	}
	if got[1].Status != 200 || got[2].Status != 200 {
		t.Errorf("others: %d %d", got[1].Status, got[2].Status)
	}
	m.logged(`"path":"/bounded"`, `"response_flags":"UT"`)
}

func TestMirror(t *testing.T) {
	m := use(t)
	m.apply(service("mirrored", "") + service("mirrored-v1", "v1") + service("mirrored-v2", "v2") + route("mirrored", "mirrored", `
  - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: mirrored-v2, port: 80}}}]
    backendRefs: [{name: mirrored-v1, port: 80}]
`))
	m.until("the route is in force", request{URL: "http://mirrored/", Times: 20}, func(r response) bool { return r.Versions["v1"] == 20 })
	got := m.ask(request{URL: "http://mirrored/?key=m1"}, request{URL: "http://mirrored/?key=m2", Method: "POST", Body: 1000})
	for i, r := range got {
		if r.Seen.Version != "v1" {
			t.Errorf("request %d was answered by %q", i, r.Seen.Version)
		}
	}
	m.logged(`"path":"/"`, `"mirror":"app/mirrored-v2.app.svc.cluster.local"`)
	// The copies have arrived at v2: the next request with the key is the second.
	for _, key := range []string{"m1", "m2"} {
		m.until("the copy has arrived", request{URL: "http://mirrored-v2/count?key=" + key}, func(r response) bool { return r.Seen.Count > 1 })
	}
}

// An endpoint that is gone, and one that breaks off, have their own flags.
func TestFailuresAreNamed(t *testing.T) {
	m := use(t)
	m.apply(service("broken", "v1") + strings.ReplaceAll(service("empty", "v9"), "app: echo", "app: nobody"))
	m.until("the services are known", request{URL: "http://empty/"}, status(503))
	m.logged(`"dst.service":"empty.app.svc.cluster.local"`, `"response_flags":"UH"`)
	got := m.get("http://broken/?key=r&reset=1")
	if got.Status != 503 && got.Status != 502 {
		t.Errorf("a response that broke off before it began: %d", got.Status)
	}
	m.logged(`"dst.service":"broken.app.svc.cluster.local"`, `"response_flags":"UC"`)
}

// RetryPolicy says after which failures a whole Service, gRPC included, is tried
// again.
func TestRetryPolicy(t *testing.T) {
	m := use(t)
	retries := func(name, spec string) string {
		return policy("RetryPolicy", name, "targetRefs: [{kind: Service, name: "+name+"}]\n"+strings.TrimSpace(spec))
	}
	m.apply(service("again", "v1") + retries("again", `
attempts: 2
retryOn: [Reset, Timeout]
codes: [503]
perTryTimeout: 2s
backoff: {base: 5ms, max: 10ms}
`) + service("again-rpc", "v1") + retries("again-rpc", `
attempts: 2
grpcCodes: [UNAVAILABLE]
backoff: {base: 5ms, max: 10ms}
`) + service("again-never", "v1") + retries("again-never", `
attempts: 0
`) + service("again-unsafe", "v1") + retries("again-unsafe", `
attempts: 2
retryOn: [Reset]
unsafeMethods: true
`))
	for _, name := range []string{"again", "again-rpc", "again-never", "again-unsafe"} {
		m.until(name+" answers", request{URL: "http://" + name + "/"}, status(200))
	}
	m.until("the policy is in force", request{URL: "http://again/?key=p0" + fmt.Sprint(time.Now().UnixNano()) + "&fail=1"}, status(200))
	got := m.ask(
		request{URL: "http://again/?key=p1&fail=2"}, request{URL: "http://again/?key=p2&fail=3"},
		request{URL: "http://again/?key=p3&reset=2"}, request{URL: "http://again/?key=p4&reset=1", Method: "POST", Body: 10},
		request{URL: "http://again/?key=p5&slow=2&delay=60000"}, request{URL: "http://again-never/?key=p6&fail=1"},
		request{URL: "http://again-unsafe/?key=p7&reset=1", Method: "POST", Body: 10},
	)
	for i, want := range []struct{ status, count int }{{200, 3}, {503, 3}, {200, 3}, {503, 0}, {200, 3}, {503, 1}, {200, 2}} {
		if got[i].Status != want.status || got[i].Seen.Count != want.count {
			t.Errorf("request %d: status %d after %d tries, want %d after %d", i, got[i].Status, got[i].Seen.Count, want.status, want.count)
		}
	}
	rpc := func(key string, fail int) request {
		return request{URL: fmt.Sprintf("http://again-rpc/rpc?key=%s&fail=%d", key, fail), Method: "POST", HTTP2: true, Body: 10, Header: map[string]string{"content-type": "application/grpc"}}
	}
	calls := m.ask(rpc("q1", 2), rpc("q2", 3))
	if calls[0].Header.Get("grpc-status") != "0" || calls[1].Header.Get("grpc-status") != "14" {
		t.Errorf("gRPC: %v after 2 failures, %v after 3", calls[0].Header, calls[1].Header)
	}
	m.logged(`"dst.service":"again-rpc.app.svc.cluster.local"`, `"grpc_status":"OK"`, `"attempts":3`)
}

// Retries stay within the budget of the Service.
func TestRetryBudget(t *testing.T) {
	m := use(t)
	m.apply(service("budget", "v1") + policy("RetryPolicy", "budget", `
targetRefs: [{kind: Service, name: budget}]
attempts: 3
codes: [503]
backoff: {base: 1ms, max: 2ms}
`) + `
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {name: budget, namespace: app}
spec:
  targetRefs: [{group: "", kind: Service, name: budget}]
  retryConstraint:
    budget: {percent: 20, interval: 60s}
    minRetryRate: {count: 1, interval: 60s}
`)
	m.until("the policies are in force", request{URL: "http://budget/?key=b0&fail=1"}, func(r response) bool { return r.Status == 200 && r.Seen.Count > 1 })
	before := m.get("http://budget/?key=b1").Seen.Count
	got := m.ask(request{URL: "http://budget/?status=503&key=b1", Times: 100}, request{URL: "http://budget/?key=b1"})
	tries := got[1].Seen.Count - before - 1
	if got[0].Statuses[503] != 100 || tries < 105 || tries > 130 {
		t.Errorf("100 requests that fail, with a budget of 20 %%, made %d tries: %v", tries, got[0].Statuses)
	}
	m.counted("ambit_upstream_overflow_total", "budget.app", "retry_budget")
}

// Timeouts of a policy hold for the whole Service, each with its own meaning.
func TestTimeoutPolicy(t *testing.T) {
	m := use(t)
	m.apply(service("patience", "v1") + policy("TimeoutPolicy", "patience", `
targetRefs: [{kind: Service, name: patience}]
request: 3s
backendRequest: 1s
`) + policy("RetryPolicy", "patience", `
targetRefs: [{kind: Service, name: patience}]
attempts: 9
retryOn: [Timeout]
backoff: {base: 1ms, max: 2ms}
`) + service("drip", "v1") + policy("TimeoutPolicy", "drip", `
targetRefs: [{kind: Service, name: drip}]
idle: 3s
`))
	m.until("the policy is in force", request{URL: "http://patience/?delay=60000"}, status(504))
	got := m.ask(request{URL: "http://patience/?delay=60000&key=t1"}, request{URL: "http://patience/?key=t1"}, request{URL: "http://patience/?slow=1&delay=60000&key=t2"})
	if got[0].Status != 504 || got[0].Took < 2500*time.Millisecond || got[0].Took >= time.Minute {
		t.Errorf("all of a request: %d after %s", got[0].Status, got[0].Took)
	}
	if n := got[1].Seen.Count; n < 3 || n > 5 {
		t.Errorf("3 s have room for three tries of 1 s; there were %d", n-1)
	}
	if got[2].Status != 200 || got[2].Seen.Count != 2 {
		t.Errorf("a second try: %d, %d", got[2].Status, got[2].Seen.Count)
	}
	m.until("pauses are bounded", request{URL: "http://drip/?size=200000&pause=20000"}, func(r response) bool { return r.Status == 200 && r.Error != "" })
	if r := m.get("http://drip/?size=2000000&pause=50"); r.Error != "" || r.Size != 2000000 {
		t.Errorf("pauses within the bound: %d bytes, %s", r.Size, r.Error)
	}
	m.logged(`"dst.service":"drip.app.svc.cluster.local"`, `"response_flags":"UT"`)
}

// What cannot be connected to is tried elsewhere, without a policy that says so.
func TestRetryElsewhere(t *testing.T) {
	m := use(t)
	const deaf = `
---
apiVersion: v1
kind: Service
metadata: {name: partly, namespace: app}
spec:
  selector: {part: partly}
  ports: [{name: http, port: 80, targetPort: web}]
---
apiVersion: v1
kind: Service
metadata: {name: partly-once, namespace: app}
spec:
  selector: {part: partly}
  ports: [{name: http, port: 80, targetPort: web}]
`
	m.apply(deaf + partly() + policy("RetryPolicy", "partly", `
targetRefs: [{kind: Service, name: partly}]
attempts: 2
retryOn: [ConnectFailure]
`) + policy("RetryPolicy", "partly-once", `
targetRefs: [{kind: Service, name: partly-once}]
attempts: 0
`) + policy("LoadBalancingPolicy", "partly", `
targetRefs: [{kind: Service, name: partly}, {kind: Service, name: partly-once}]
algorithm: RoundRobin
`))
	m.until("both pods are endpoints", request{URL: "http://partly-once/", Times: 20}, func(r response) bool { return r.Statuses[200] == 10 && r.Statuses[503] == 10 })
	if r := m.ask(request{URL: "http://partly/", Times: 50})[0]; r.Statuses[200] != 50 {
		t.Errorf("with one of two endpoints deaf: %v", r.Statuses)
	}
	m.logged(`"dst.service":"partly.app.svc.cluster.local"`, `"attempts":2`, `"status":200`)
	m.logged(`"dst.service":"partly-once.app.svc.cluster.local"`, `"response_flags":"UF"`, `"status":503`)
}

// partly are two pods behind one name of a port, of which one does not listen.
func partly() string {
	self, _ := os.Executable()
	var out strings.Builder
	for name, port := range map[string]int{"hears": 8080, "deaf": 9999} {
		fmt.Fprintf(&out, `
---
apiVersion: v1
kind: Pod
metadata: {name: partly-%[1]s, namespace: app, labels: {part: partly}}
spec:
  serviceAccountName: client
  containers:
  - name: main
    command: [%[2]s, echo]
    env: [{name: %[3]s, value: "1"}, {name: VERSION, value: v1}]
    ports: [{name: web, containerPort: %[4]d}]
`, name, self, roleEnv, port)
	}
	return out.String()
}
