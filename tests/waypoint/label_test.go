package waypoint_test

import (
	"os"
	"strings"
	"testing"
)

// A namespace's label alone brings a waypoint: nothing fails on the way to it,
// though policies name the client, and then requests are treated as routes say.
// What only the waypoint can enforce is closed until it is there.
func TestLabelAlone(t *testing.T) {
	m := use(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	in := func(text string) string { return strings.ReplaceAll(text, "namespace: app", "namespace: late") }
	var b strings.Builder
	deploy(&b, self, 1, "late", "echo", "echo", "v1", "echo", "echo")
	deploy(&b, self, 1, "late", "strict", "strict", "v1", "strict", "echo")
	namespace := `
---
apiVersion: v1
kind: Namespace
metadata: {name: late, labels: {ambit-mesh.io/dataplane-mode: ambient LABEL}}
`
	rest := b.String() + in(service("web", "v1")+strings.ReplaceAll(service("guarded", ""), "app: echo", "app: strict")) +
		strings.ReplaceAll(route("web", "web", `
  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-through, value: waypoint}]}}]
    backendRefs: [{name: web, port: 80}]
`), "namespace: app", "namespace: late") + in(policy("AuthorizationPolicy", "guarded", `
targetRefs: [{kind: Service, name: guarded}]
action: DENY
enforcementLevel: Application
rules:
- name: writes
  application: {methods: [DELETE]}
`)+policy("AuthorizationPolicy", "clients", `
targetRefs: [{kind: Service, name: web}]
action: ALLOW
rules:
- name: client
  sources: [{type: ServiceAccount, serviceAccount: {namespace: "app", name: client}}]
`))
	m.apply(strings.Replace(namespace, "LABEL", "", 1) + rest)
	web := request{URL: "http://web.late/"}
	m.until("it is served at layer 4", web, func(r response) bool { return r.Status == 200 && r.Header.Get("x-through") == "" })
	refusedBy := func(r response) bool { return r.Status != 200 }
	m.untilFrom("other/client", "others are not", request{URL: "http://web.late/", Fresh: true}, refusedBy)

	end := m.load("http://web.late/", 4)
	m.apply(strings.Replace(namespace, "LABEL", ", ambit-mesh.io/use-waypoint: late-wp", 1) + rest)
	m.until("the waypoint serves, and meanwhile nobody is let around it where a policy is", web, func(r response) bool {
		for _, r := range m.ask(request{URL: "http://guarded.late/", Method: "DELETE", Fresh: true}) {
			if r.Status != 0 && r.Status != 403 {
				t.Errorf("a request that a policy forbids was answered with %d", r.Status)
			}
		}
		return r.Status == 200 && r.Header.Get("x-through") != ""
	})
	m.condition("Service", "web", "WaypointBound", `"Bound"`, "late/late-wp")
	m.until("what is guarded is open", request{URL: "http://guarded.late/", Fresh: true}, status(200))
	m.until("and guarded", request{URL: "http://guarded.late/", Method: "DELETE", Fresh: true}, status(403))
	m.untilFrom("other/client", "others are still not served", request{URL: "http://web.late/", Fresh: true}, refusedBy)
	for _, got := range end() {
		if len(got.Failures) > 0 || got.Requests == 0 {
			t.Errorf("of %d requests failed %v", got.Requests, got.Failures)
		}
	}
}
