package waypoint_test

import (
	"strconv"
	"strings"
	"testing"
)

// A limited origin does not affect another, which is not even told of a limit.
func TestRateLimitOfAnOrigin(t *testing.T) {
	m := use(t)
	m.apply(service("limited", "v1") + policy("RateLimitPolicy", "limited", `
targetRefs: [{kind: Service, name: limited}]
rules:
- {name: testers, sources: [{namespace: app, serviceAccount: tester}], requests: 6, unit: Hour}
`))
	m.untilFrom("tester", "the limit is in force", request{URL: "http://limited/"}, func(r response) bool { return r.Header.Get("ratelimit") != "" })
	got := m.askFrom("tester", request{URL: "http://limited/", Times: 12}, request{URL: "http://limited/"}, request{
		URL: "http://limited/some.Service/Call", Method: "POST", HTTP2: true, Header: map[string]string{"content-type": "application/grpc"},
	})
	if n := got[0].Statuses[200]; n > 5 || n == 0 || got[0].Statuses[429] != 12-n {
		t.Errorf("of 12 behind a limit of 6, one or more of which were used: %v", got[0].Statuses)
	}
	h := got[1].Header
	after, err := strconv.Atoi(h.Get("retry-after"))
	if got[1].Status != 429 || err != nil || after < 1 || after > 3600 {
		t.Errorf("status %d, Retry-After %q", got[1].Status, h.Get("retry-after"))
	}
	if !strings.Contains(h.Get("ratelimit"), "r=0") || !strings.Contains(h.Get("ratelimit-policy"), "q=6") || !strings.Contains(h.Get("proxy-status"), "app/limited") {
		t.Errorf("fields %v", h)
	}
	if h := got[2].Header; got[2].Status != 200 || h.Get("grpc-status") != "8" {
		t.Errorf("a gRPC call: status %d, %v", got[2].Status, h)
	}
	if other := m.ask(request{URL: "http://limited/", Times: 30})[0]; other.Statuses[200] != 30 || other.Header.Get("ratelimit") != "" {
		t.Errorf("the other origin: %v %v", other.Statuses, other.Header)
	}
	m.logged(`"rate_limit":"limited"`, `"response_flags":"RL"`, `"policy.rule":"testers"`, `"status":429`)
	m.counted("ambit_ratelimit_requests_total", `policy="app/limited"`, `rule="testers"`, `outcome="limited"`)
}

// Each value of a key has a limit of its own; limits of a version and of a rule of
// a route hold for what goes there.
func TestRateLimitKeysAndTargets(t *testing.T) {
	m := use(t)
	m.apply(service("keyed", "") + service("keyed-v1", "v1") + service("keyed-v2", "v2") + route("keyed", "keyed", `
  - name: named
    matches: [{path: {value: /named}}]
    backendRefs: [{name: keyed-v1, port: 80}]
  - name: new
    matches: [{headers: [{name: x-new, value: "1"}]}]
    backendRefs: [{name: keyed-v2, port: 80}]
  - name: rest
    backendRefs: [{name: keyed-v1, port: 80}]
`) + policy("RateLimitPolicy", "keyed", `
targetRefs: [{kind: Service, name: keyed}]
rules:
- {name: users, matches: [{headers: [{name: x-limited, value: "1"}]}], key: [{type: Header, header: x-user}], requests: 3, unit: Hour}
`) + policy("RateLimitPolicy", "keyed-v2", `
targetRefs: [{kind: Service, name: keyed-v2}]
rules: [{requests: 4, unit: Hour}]
`) + policy("RateLimitPolicy", "keyed-rule", `
targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: keyed, sectionName: named}]
rules: [{requests: 2, unit: Hour}]
`))
	m.until("the route is in force", request{URL: "http://keyed/none"}, version("v1"))
	m.until("the limit of the rule is in force", request{URL: "http://keyed/named"}, status(429))
	m.until("the limit of the version is in force", request{URL: "http://keyed/", Header: map[string]string{"x-new": "1"}}, status(429))
	user := func(name string) request {
		return request{URL: "http://keyed/", Times: 5, Header: map[string]string{"x-limited": "1", "x-user": name}}
	}
	got := m.ask(user("ada"), user("bob"), request{URL: "http://keyed/", Times: 9}, request{URL: "http://keyed-v1/", Times: 9}, request{URL: "http://keyed-v2/", Times: 9})
	for i := range 2 {
		if got[i].Statuses[200] != 3 || got[i].Statuses[429] != 2 {
			t.Errorf("user %d of a limit of 3 each: %v", i, got[i].Statuses)
		}
	}
	if got[2].Statuses[200] != 9 || got[3].Statuses[200] != 9 {
		t.Errorf("what no limit is about: %v, %v", got[2].Statuses, got[3].Statuses)
	}
	if got[4].Statuses[429] != 9 {
		t.Errorf("the limited version, addressed by itself: %v", got[4].Statuses)
	}
}

// A limit for the whole mesh is counted by a service, and says what happens while
// that is away.
func TestGlobalRateLimit(t *testing.T) {
	m := use(t)
	limit := func(name, global string) string {
		return service(name, "v1") + policy("RateLimitPolicy", name, `
targetRefs: [{kind: Service, name: `+name+`}]
rules: [{name: all, key: [{type: Identity}], requests: 5, unit: Hour, global: {`+global+`}}]
`)
	}
	m.apply(helpers + limit("global", "backendRef: {name: helper, port: 8081}, timeout: 2s") +
		limit("global-away", "backendRef: {name: away, port: 9000}") + limit("global-deaf", "backendRef: {name: helper, port: 9999}") +
		limit("global-hang", "backendRef: {name: helper, port: 8081}, domain: hang, timeout: 100ms") +
		limit("global-open", "backendRef: {name: away, port: 9000}, failOpen: true") +
		limit("global-nobody", "backendRef: {name: nobody, port: 9000}"))
	m.until("the limit is in force", request{URL: "http://global/"}, func(r response) bool { return r.Header.Get("ratelimit") != "" })
	got := m.ask(request{URL: "http://global/", Times: 10}, request{URL: "http://global/"})
	if n := got[0].Statuses[200]; n > 4 || n == 0 || got[0].Statuses[429] != 10-n || got[1].Header.Get("retry-after") == "" {
		t.Errorf("of 10 behind a limit of 5, one or more of which were used: %v, %v", got[0].Statuses, got[1].Header)
	}
	if other := m.askFrom("tester", request{URL: "http://global/"})[0]; other.Status != 200 {
		t.Errorf("another key: %d %s", other.Status, other.Body)
	}
	for name, want := range map[string]int{"global-away": 503, "global-deaf": 503, "global-hang": 503, "global-open": 200, "global-nobody": 500} {
		r := m.until(name, request{URL: "http://" + name + "/"}, status(want))
		if want != 200 && !strings.Contains(r.Header.Get("proxy-status"), "app/"+name) {
			t.Errorf("%s: the refusal does not name its policy: %q", name, r.Header.Get("proxy-status"))
		}
	}
}
