package waypoint_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// setCookie gives the cookie of that name which an answer has set.
func setCookie(t *testing.T, r response, name string) *http.Cookie {
	t.Helper()
	for _, c := range (&http.Response{Header: r.Header}).Cookies() {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no cookie %s in %d %v", name, r.Status, r.Header)
	return nil
}

// A user stays on the version that answered first while the weights move on, and
// is let go only when that version has gone.
func TestSessionPersistence(t *testing.T) {
	m := use(t)
	split := func(a, b int) string {
		return service("sticky", "") + service("sticky-v1", "v1") + service("sticky-v2", "v2") + route("sticky", "sticky", fmt.Sprintf(`
  - name: all
    backendRefs: [{name: sticky-v1, port: 80, weight: %d}, {name: sticky-v2, port: 80, weight: %d}]
`, a, b)) + policy("SessionPersistencePolicy", "sticky", `
targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: sticky, sectionName: all}]
sessionName: stay
absoluteTimeout: 1h
cookie: {lifetime: Permanent}
`)
	}
	m.apply(split(90, 10))
	r := m.until("a session begins", request{URL: "http://sticky/"}, func(r response) bool {
		return r.Seen.Version == "v1" && strings.HasPrefix(r.Header.Get("set-cookie"), "stay=")
	})
	c := setCookie(t, r, "stay")
	if c.MaxAge < 3500 || c.MaxAge > 3600 || !c.HttpOnly {
		t.Errorf("cookie %v", c)
	}
	user := map[string]string{"cookie": "other=1; stay=" + c.Value}
	for _, share := range []int{50, 90, 100} {
		m.apply(split(100-share, share))
		m.until(fmt.Sprintf("%d %% of the new go to v2", share), request{URL: "http://sticky/", Times: 60}, func(r response) bool {
			return r.Versions["v2"] >= 60*share/100-20
		})
		if share == 100 {
			continue
		}
		if got := m.ask(request{URL: "http://sticky/", Header: user, Times: 40})[0]; got.Versions["v1"] != 40 {
			t.Errorf("at %d %% the user was sent to %v", share, got.Versions)
		}
	}
	// Weight 0 is no longer a place to stay (GEP-1619).
	got := m.ask(request{URL: "http://sticky/", Header: user, Times: 20}, request{URL: "http://sticky/", Header: map[string]string{"cookie": "stay=forged"}})
	if got[0].Versions["v2"] != 20 || got[0].Header.Get("set-cookie") == "" {
		t.Errorf("after the version was taken out: %v, %v", got[0].Versions, got[0].Header)
	}
	if got[1].Status != 200 || got[1].Header.Get("set-cookie") == "" {
		t.Errorf("a cookie that means nothing: %d %v", got[1].Status, got[1].Header)
	}
}

// A route says itself that users stay, by a cookie or by a header of any name.
func TestSessionOfARoute(t *testing.T) {
	m := use(t)
	m.apply(service("kept", "") + service("kept-v1", "v1") + service("kept-v2", "v2") + route("kept", "kept", `
  - matches: [{path: {value: /cookie}}]
    sessionPersistence: {sessionName: stay, type: Cookie}
    backendRefs: [{name: kept-v1, port: 80}, {name: kept-v2, port: 80}]
  - sessionPersistence: {sessionName: x-stay, type: Header}
    backendRefs: [{name: kept-v1, port: 80}, {name: kept-v2, port: 80}]
`))
	m.until("sessions begin", request{URL: "http://kept/"}, func(r response) bool { return r.Status == 200 && r.Header.Get("x-stay") != "" })
	for range 4 {
		got := m.ask(request{URL: "http://kept/"}, request{URL: "http://kept/cookie"})
		c := setCookie(t, got[1], "stay")
		if c.MaxAge != 0 || !c.Expires.IsZero() {
			t.Errorf("a cookie of a session outlives it: %v", c)
		}
		again := m.ask(
			request{URL: "http://kept/", Times: 20, Header: map[string]string{"x-stay": got[0].Header.Get("x-stay")}},
			request{URL: "http://kept/cookie", Times: 20, Header: map[string]string{"cookie": "stay=" + c.Value}},
		)
		for i, r := range again {
			if want := got[i].Header.Get("x-pod"); r.Pods[want] != 20 {
				t.Errorf("session %d of %s was sent to %v", i, want, r.Pods)
			}
		}
	}
	if r := m.ask(request{URL: "http://kept/", Times: 40})[0]; r.Versions["v1"] == 0 || r.Versions["v2"] == 0 {
		t.Errorf("without a session: %v", r.Versions)
	}
}

// Requests with the same header, or the same cookie, go to the same endpoint.
func TestHashedEndpoints(t *testing.T) {
	m := use(t)
	m.apply(many("ring") + policy("LoadBalancingPolicy", "ring", `
targetRefs: [{kind: Service, name: ring}]
algorithm: RingHash
hashOn: {type: Header, header: x-user}
`) + many("maglev") + policy("LoadBalancingPolicy", "maglev", `
targetRefs: [{kind: Service, name: maglev}]
algorithm: Maglev
hashOn: {type: Cookie, cookie: {name: user, ttl: 1h}}
`) + many("turns") + policy("LoadBalancingPolicy", "turns", `
targetRefs: [{kind: Service, name: turns}]
algorithm: RoundRobin
`))
	for name, header := range map[string]string{"ring": "x-user", "maglev": "cookie"} {
		value := func(i int) string {
			if name == "ring" {
				return fmt.Sprint("user-", i)
			}
			return fmt.Sprint("a=b; user=user-", i)
		}
		ask := func(i, times int) request {
			return request{URL: "http://" + name + "/", Times: times, Header: map[string]string{header: value(i)}}
		}
		m.until("users of "+name+" stay", ask(0, 30), func(r response) bool { return r.Statuses[200] == 30 && len(r.Pods) == 1 })
		var asks []request
		for i := range 12 {
			asks = append(asks, ask(i, 10))
		}
		pods := map[string]bool{}
		for i, r := range m.ask(asks...) {
			if len(r.Pods) != 1 || r.Statuses[200] != 10 {
				t.Errorf("%s: user %d was sent to %v, %v", name, i, r.Pods, r.Statuses)
			}
			pods[r.Header.Get("x-pod")] = true
		}
		if len(pods) != 3 {
			t.Errorf("%s: 12 users were sent to %v", name, pods)
		}
	}
	first := m.get("http://maglev/")
	c := setCookie(t, first, "user")
	got := m.ask(request{URL: "http://maglev/", Times: 20, Header: map[string]string{"cookie": "user=" + c.Value}})[0]
	if got.Pods[first.Header.Get("x-pod")] != 20 || got.Header.Get("set-cookie") != "" {
		t.Errorf("with the cookie that was set: %v instead of %s, %v", got.Pods, first.Header.Get("x-pod"), got.Header)
	}
	m.until("round robin is even", request{URL: "http://turns/", Times: 30}, func(r response) bool {
		for _, n := range r.Pods {
			if n != 10 {
				return false
			}
		}
		return len(r.Pods) == 3
	})
}
