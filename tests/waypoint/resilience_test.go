package waypoint_test

import (
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
    timeouts: {request: 200ms}
    backendRefs: [{name: slow, port: 80}]
  - matches: [{path: {value: /free}}]
    backendRefs: [{name: slow, port: 80}]
`))
	m.until("the route is in force", request{URL: "http://slow/neither"}, status(404))
	got := m.ask(request{URL: "http://slow/bounded?delay=5000"}, request{URL: "http://slow/bounded?delay=1"}, request{URL: "http://slow/free?delay=500"})
	if got[0].Status != 504 || got[0].Took > 3*time.Second {
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
