package waypoint_test

import (
	"encoding/json"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"
)

// Rules about requests: who may do what where, whichever way it is written.
func TestRequestPolicy(t *testing.T) {
	m := use(t)
	m.apply(service("guarded", "v1") + policy("AuthorizationPolicy", "guarded", `
targetRefs: [{kind: Service, name: guarded}]
action: ALLOW
enforcementLevel: Application
rules:
- name: readers
  application: {methods: [GET, HEAD], paths: [{type: PathPrefix, value: /open}]}
- name: admins
  sources: [{type: ServiceAccount, serviceAccount: {name: tester}}]
  application: {paths: [{type: PathPrefix, value: /admin}]}
- name: staging
  application: {paths: [{type: Exact, value: /env}], headers: [{name: x-env, values: [staging]}]}
- name: host
  application: {paths: [{type: Exact, value: /host}], hosts: [inner.example.com]}
`) + policy("AuthorizationPolicy", "guarded-deny", `
targetRefs: [{kind: Service, name: guarded}]
action: DENY
enforcementLevel: Application
rules:
- name: secrets
  application: {paths: [{type: PathPrefix, value: /open/secret}]}
`))
	m.until("policies are in force", request{URL: "http://guarded/open/secret"}, status(403))
	m.until("readers are let in", request{URL: "http://guarded/open"}, status(200))
	at := func(p string) request { return request{URL: "http://guarded" + p} }
	for _, tc := range []struct {
		from string
		request
		want int
	}{
		{"client", at("/open/x?y=z"), 200},
		{"client", request{URL: "http://guarded/open", Method: "POST"}, 403},
		{"client", at("/opened"), 403},
		{"client", at("/admin"), 403},
		{"tester", at("/admin/x"), 200},
		{"tester", at("/open/../admin"), 200},
		{"client", at("/open/../admin"), 403},
		{"client", at("/env"), 403},
		{"client", request{URL: "http://guarded/env", Header: map[string]string{"x-env": "staging"}}, 200},
		{"client", request{URL: "http://guarded/env", Header: map[string]string{"x-env": "staging, other"}}, 403},
		{"client", at("/host"), 403},
		{"client", request{URL: "http://guarded/host", Host: "inner.example.com"}, 200},
	} {
		if got := m.askFrom(tc.from, tc.request)[0]; got.Status != tc.want {
			t.Errorf("%s %+v: %d, want %d", tc.from, tc.request, got.Status, tc.want)
		}
	}
	for _, p := range []string{
		"/open/./secret", "/open/x/../secret", "/open//secret", "/open/%73ecret", "/open/secre%74/x", "/open/%2e/secret", "/open/x/%2e%2e/secret",
		"/open%2fsecret", "/open/%2Fsecret", "/open\\secret", "/open%5csecret", "/open/secret%00", "/open/secret;x", "/open/secret%3fx", "/open/%252e%252e/secret",
		"/x/../open/secret", "/%6fpen/secret", "/open/..;/open/secret", "//open/secret", "/open/x/..%2fsecret",
	} {
		u := &url.URL{Scheme: "http", Host: "guarded", Opaque: "//guarded" + p}
		got := m.ask(request{URL: u.String()})[0]
		if got.Status != 200 {
			continue
		}
		seen, err := url.PathUnescape(strings.NewReplacer("\\", "/", ";", "/").Replace(got.Seen.Path))
		if err != nil || strings.HasPrefix(path.Clean(seen)+"/", "/open/secret/") {
			t.Errorf("%q was let in as %q", p, got.Seen.Path)
		}
	}
}

// A refusal has the same name in the answer, the log, the metric and the flow.
func TestRefusalIsNamed(t *testing.T) {
	m := use(t)
	m.apply(service("named", "v1") + policy("AuthorizationPolicy", "named", `
targetRefs: [{kind: Service, name: named}]
action: DENY
enforcementLevel: Application
rules:
- name: writes
  application: {methods: [POST]}
`))
	r := m.until("the policy is in force", request{URL: "http://named/", Method: "POST", Body: 5}, status(403))
	if s := r.Header.Get("proxy-status"); !strings.Contains(s, "app/named") || !strings.Contains(s, "writes") {
		t.Errorf("the answer says %q", s)
	}
	m.logged(`"dst.service":"named.app.svc.cluster.local"`, `"policy":"named"`, `"policy.namespace":"app"`, `"policy.rule":"writes"`, `"response_flags":"DENY"`)
	m.counted("ambit_requests_total", "named.app.svc.cluster.local", `"DENY"`, `"403"`)
	m.observed(func(call string) bool {
		return strings.Contains(call, "named.app.svc.cluster.local") && strings.Contains(call, `"writes"`) && strings.Contains(call, `"verdict":"denied"`)
	}, "--verdict", "denied", "--last", "200")
}

// Calls of gRPC are told apart by service and method, and refused as gRPC is.
func TestGRPCPolicy(t *testing.T) {
	m := use(t)
	m.apply(service("guarded-rpc", "v1") + policy("AuthorizationPolicy", "guarded-rpc", `
targetRefs: [{kind: Service, name: guarded-rpc}]
action: ALLOW
enforcementLevel: Application
rules:
- name: empty
  application: {grpcMethods: [{service: grpc.testing.TestService, method: EmptyCall}]}
`))
	call := func(method string) request {
		return request{URL: "http://guarded-rpc:7070/grpc.testing.TestService/" + method, Method: "POST", HTTP2: true, Body: 5, Header: map[string]string{"content-type": "application/grpc", "te": "trailers"}}
	}
	m.until("the policy is in force", call("UnaryCall"), func(r response) bool { return r.Status == 200 && r.Header.Get("grpc-status") == "7" })
	if r := m.ask(call("EmptyCall"))[0]; r.Status != 200 || r.Trailer.Get("grpc-status") != "0" {
		t.Errorf("the method that is allowed: %+v", r)
	}
	if r := m.ask(call("UnaryCall"))[0]; !strings.Contains(r.Header.Get("grpc-message"), "guarded-rpc") {
		t.Errorf("the refusal says %q", r.Header.Get("grpc-message"))
	}
}

// Nobody gets around the waypoint of a service with a policy about requests.
func TestAroundTheWaypoint(t *testing.T) {
	m := use(t)
	m.apply(pods("walled") + policy("AuthorizationPolicy", "walled", `
targetRefs: [{kind: Service, name: walled}]
action: DENY
enforcementLevel: Application
rules:
- application: {methods: [DELETE]}
`))
	r := m.until("the service answers", request{URL: "http://walled/"}, status(200))
	m.until("the policy is in force", request{URL: "http://walled/", Method: "DELETE"}, status(403))
	direct := request{URL: "http://" + r.Seen.Pod + ":8080/", Fresh: true}
	m.until("the pod refuses who goes around", direct, func(r response) bool { return r.Error != "" })
	if got := m.askFrom("other/client", direct)[0]; got.Error == "" {
		t.Errorf("another goes around: %d", got.Status)
	}
	m.accessLog(`"policy":"ambit_only_through_waypoint_walled"`, `"direction":"inbound"`, `"src.identity":"spiffe://cluster.local/ns/app/sa/client"`)
	if got := m.get("http://walled/"); got.Status != 200 {
		t.Errorf("through the waypoint: %d", got.Status)
	}
}

// Behind the waypoint the destination still decides about the client, and the
// application sees its address.
func TestDestinationSeesTheClient(t *testing.T) {
	m := use(t)
	m.apply(pods("behind") + policy("AuthorizationPolicy", "behind", `
targetRefs: [{kind: Pod, selector: {matchLabels: {app: behind}}}]
action: DENY
rules:
- name: no-testers
  sources: [{type: ServiceAccount, serviceAccount: {name: tester}}]
`))
	r := m.until("the service answers", request{URL: "http://behind/"}, status(200))
	if host, _, _ := strings.Cut(r.Seen.Remote, ":"); !slices.Contains(m.addresses("app", "client-"), host) {
		t.Errorf("the application sees %s; the client is at %v", r.Seen.Remote, m.addresses("app", "client-"))
	}
	refused := m.untilFrom("tester", "the destination refuses", request{URL: "http://behind/"}, status(403))
	if s := refused.Header.Get("proxy-status"); !strings.Contains(s, "no-testers") || !strings.Contains(s, "app/behind") {
		t.Errorf("the refusal says %q", s)
	}
	if got := m.get("http://behind/"); got.Status != 200 {
		t.Errorf("another client: %d", got.Status)
	}
	m.accessLog(`"policy":"behind"`, `"policy.rule":"no-testers"`, `"src.identity":"spiffe://cluster.local/ns/app/sa/tester"`, `"peer.identity":"spiffe://cluster.local/ns/app/sa/wp"`)
}

// observed waits for a call in what the mesh's proxies tell of.
func (m *mesh) observed(want func(string) bool, filter ...string) {
	m.t.Helper()
	var last []byte
	for range 100 {
		last, _ = m.command(m.t.Context(), append([]string{"observe", "-o", "json"}, filter...)...).CombinedOutput()
		for line := range strings.Lines(string(last)) {
			if json.Valid([]byte(line)) && want(line) {
				return
			}
		}
		pause(m.t)
	}
	m.t.Fatalf("no such call in\n%s", tail(last, 3000))
}
