package waypoint_test

import (
	"fmt"
	"strings"
	"testing"
)

// route is an HTTPRoute on a Service of namespace app.
func route(name, parent, rules string) string {
	return routeIn("app", name, parent, rules)
}

func routeIn(namespace, name, parent, rules string) string {
	return fmt.Sprintf(`
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %s, namespace: %s}
spec:
  parentRefs: [{group: "", kind: Service, name: %s, namespace: app, port: 80}]
  rules:
%s`, name, namespace, parent, strings.TrimPrefix(rules, "\n"))
}

func version(v string) func(response) bool {
	return func(r response) bool { return r.Status == 200 && r.Seen.Version == v }
}

func status(n int) func(response) bool {
	return func(r response) bool { return r.Status == n }
}

// Without a route requests go to the service's own endpoints; with one nothing
// goes to where no rule sends it.
func TestRouteMatching(t *testing.T) {
	m := use(t)
	svc := service("matching", "") + service("matching-v1", "v1") + service("matching-v2", "v2")
	m.apply(svc)
	m.until("the service answers without a route", request{URL: "http://matching/x"}, status(200))
	m.apply(svc + route("matching", "matching", `
  - matches: [{path: {type: Exact, value: /exact}}]
    backendRefs: [{name: matching-v1, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /v2}}]
    backendRefs: [{name: matching-v2, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /v2/inner}}]
    backendRefs: [{name: matching-v1, port: 80}]
  - matches:
    - {headers: [{name: X-Group, value: testers}]}
    - {queryParams: [{name: beta, value: "1"}]}
    backendRefs: [{name: matching-v2, port: 80}]
  - matches: [{method: DELETE}]
    backendRefs: [{name: matching-v2, port: 80}]
`))
	m.until("the route is in force", request{URL: "http://matching/nothing"}, status(404))
	for _, tc := range []struct {
		request
		want string
	}{
		{request{URL: "http://matching/exact"}, "v1"},
		{request{URL: "http://matching/exact/"}, ""},
		{request{URL: "http://matching/v2"}, "v2"},
		{request{URL: "http://matching/v2/x?q=1"}, "v2"},
		{request{URL: "http://matching/v2/inner/x"}, "v1"},
		{request{URL: "http://matching/v2/x/../inner/x"}, "v1"},
		{request{URL: "http://matching/v2example"}, ""},
		{request{URL: "http://matching/", Header: map[string]string{"x-group": "testers"}}, "v2"},
		{request{URL: "http://matching/?beta=1"}, "v2"},
		{request{URL: "http://matching/?beta=2"}, ""},
		{request{URL: "http://matching/", Method: "DELETE"}, "v2"},
		{request{URL: "http://matching/exact", Host: "another.example.com"}, "v1"},
	} {
		got := m.ask(tc.request)[0]
		if want := map[bool]int{true: 200, false: 404}[tc.want != ""]; got.Status != want || got.Seen.Version != tc.want {
			t.Errorf("%+v: %d %q, want %q", tc.request, got.Status, got.Seen.Version, tc.want)
		}
	}
	if got := m.get("http://matching/nothing"); !strings.Contains(got.Header.Get("proxy-status"), "destination_not_found") {
		t.Errorf("the refusal says %q", got.Header)
	}
	m.logged(`"path":"/nothing"`, `"status":404`, `"response_flags":"NR"`)
	m.apply(svc)
	m.until("the route is gone", request{URL: "http://matching/nothing"}, status(200))
}

func TestCanary(t *testing.T) {
	m := use(t)
	svc := service("canary", "") + service("canary-v1", "v1") + service("canary-v2", "v2")
	split := func(a, b int) string {
		return svc + route("canary", "canary", fmt.Sprintf(`
  - backendRefs: [{name: canary-v1, port: 80, weight: %d}, {name: canary-v2, port: 80, weight: %d}]
`, a, b))
	}
	for _, share := range []int{0, 10, 50, 100} {
		m.apply(split(100-share, share))
		const n = 600
		m.until(fmt.Sprintf("%d %% go to v2", share), request{URL: "http://canary/", Times: n}, func(r response) bool {
			got := 100 * float64(r.Versions["v2"]) / n
			tolerance := 6.0
			if share == 0 || share == 100 {
				tolerance = 0
			}
			return r.Statuses[200] == n && got >= float64(share)-tolerance && got <= float64(share)+tolerance
		})
	}
}

// A backend that is not there fails its own share and no more.
func TestInvalidBackendFailsItsShare(t *testing.T) {
	m := use(t)
	m.apply(service("share", "") + service("share-v1", "v1") + route("share", "share", `
  - matches: [{path: {value: /half}}]
    backendRefs: [{name: share-v1, port: 80, weight: 1}, {name: nobody, port: 80, weight: 1}]
  - matches: [{path: {value: /zero}}]
    backendRefs: [{name: share-v1, port: 80, weight: 1}, {name: nobody, port: 80, weight: 0}]
  - matches: [{path: {value: /none}}]
    backendRefs: [{name: nobody, port: 80}]
`))
	m.until("the route is in force", request{URL: "http://share/none"}, status(500))
	got := m.ask(request{URL: "http://share/half", Times: 300}, request{URL: "http://share/zero", Times: 50})
	if n := got[0].Statuses[500]; n < 100 || n > 200 || got[0].Statuses[200] != 300-n {
		t.Errorf("of 300 with half of them to nobody: %v", got[0].Statuses)
	}
	if got[1].Statuses[200] != 50 {
		t.Errorf("a backend of weight 0 failed some: %v", got[1].Statuses)
	}
}

func TestConsumerRoute(t *testing.T) {
	m := use(t)
	m.apply(service("consumed", "") + service("consumed-v1", "v1") + service("consumed-v2", "v2") + route("producer", "consumed", `
  - backendRefs: [{name: consumed-v1, port: 80}]
`) + routeIn("other", "consumer", "consumed", `
  - backendRefs: [{name: consumed-v2, namespace: app, port: 80}]
`))
	m.untilFrom("other/client", "the consumer's route is in force", request{URL: "http://consumed.app/"}, version("v2"))
	if got := m.ask(request{URL: "http://consumed/", Times: 20})[0]; got.Versions["v1"] != 20 {
		t.Errorf("a client of the producer's namespace: %v", got.Versions)
	}
	if got := m.askFrom("other/client", request{URL: "http://consumed.app/", Times: 20})[0]; got.Versions["v2"] != 20 {
		t.Errorf("a client of the consumer's namespace: %v", got.Versions)
	}
}

func TestHeadersRedirectRewrite(t *testing.T) {
	m := use(t)
	m.apply(service("filters", "") + route("filters", "filters", `
  - matches: [{path: {value: /headers}}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: X-Set, value: new}], add: [{name: X-Add, value: more}], remove: [X-Remove]}
    - type: ResponseHeaderModifier
      responseHeaderModifier: {set: [{name: X-Version, value: hidden}], add: [{name: X-Answer, value: "yes"}]}
    backendRefs: [{name: filters, port: 80}]
  - matches: [{path: {value: /moved}}]
    filters:
    - type: RequestRedirect
      requestRedirect: {hostname: new.example.com, statusCode: 301, path: {type: ReplacePrefixMatch, replacePrefixMatch: /here}}
  - matches: [{path: {value: /old}}]
    filters:
    - type: URLRewrite
      urlRewrite: {hostname: inner.example.com, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}
    backendRefs: [{name: filters, port: 80}]
`))
	got := m.until("the route is in force", request{URL: "http://filters/headers", Header: map[string]string{"x-set": "old", "x-add": "one", "x-remove": "it"}}, func(r response) bool {
		return r.Header.Get("x-answer") == "yes"
	})
	h := got.Seen.Header
	if h.Get("x-set") != "new" || strings.Join(h["X-Add"], ",") != "one,more" || h.Get("x-remove") != "" || got.Header.Get("x-version") != "hidden" {
		t.Errorf("the backend saw %v, the client %v", h, got.Header)
	}
	moved := m.get("http://filters/moved/a?b=c")
	if moved.Status != 301 || moved.Header.Get("location") != "http://new.example.com/here/a?b=c" {
		t.Errorf("%d to %q", moved.Status, moved.Header.Get("location"))
	}
	old := m.get("http://filters/old/a?b=c")
	if old.Seen.Path != "/new/a?b=c" || old.Seen.Host != "inner.example.com" {
		t.Errorf("the backend saw %q at %q", old.Seen.Path, old.Seen.Host)
	}
}
