package waypoint_test

import (
	"strings"
	"testing"
)

// askedOutside is a Service whose requests are decided about elsewhere.
func askedOutside(name, spec string) string {
	return service(name, "v1") + policy("ExternalAuthorizationPolicy", name, "targetRefs: [{kind: Service, name: "+name+"}]\n"+strings.TrimSpace(spec))
}

func TestExternalAuthorization(t *testing.T) {
	m := use(t)
	m.apply(helpers + askedOutside("outside-grpc", `
protocol: GRPC
backendRef: {name: helper, port: 9000}
maxBodyBytes: 1000
`) + askedOutside("outside-http", `
protocol: HTTP
backendRef: {name: helper, port: 9001}
http: {path: /check, allowedHeaders: [x-pass], allowedResponseHeaders: [x-checked-path, x-checked-body]}
maxBodyBytes: 1000
`))
	for _, tc := range []struct{ name, path string }{{"outside-grpc", "POST /x"}, {"outside-http", "POST /check/x"}} {
		url := "http://" + tc.name + "/x"
		refused := map[string]int{"outside-grpc": 402, "outside-http": 401}[tc.name]
		r := m.until(tc.name+" is asked", request{URL: url}, status(refused))
		if r.Body != "not without a pass" || r.Header.Get("x-denied") != "gatekeeper" || !strings.Contains(r.Header.Get("proxy-status"), "ExternalAuthorizationPolicy app/"+tc.name) {
			t.Errorf("%s: the refusal is %q %v", tc.name, r.Body, r.Header)
		}
		pass := map[string]string{"x-pass": "yes", "x-checked-path": "forged", "x-checked-body": "forged"}
		got := m.ask(
			request{URL: url, Header: pass, Method: "POST", Body: 777},
			request{URL: url, Header: pass, Method: "POST", Body: 1001},
			request{URL: url, Header: pass, Method: "POST", Body: 1001, Chunked: true},
			request{URL: "http://" + tc.name + "/nocontent", Header: pass},
		)
		h := got[0].Seen.Header
		if got[0].Status != 200 || h.Get("x-checked-path") != tc.path || h.Get("x-checked-body") != "777" || got[0].Seen.Size != 777 || h.Get("x-secret") != "" {
			t.Errorf("%s: %d, %d bytes; the backend saw %v", tc.name, got[0].Status, got[0].Seen.Size, h)
		}
		if got[1].Status != 413 || got[2].Status != 413 {
			t.Errorf("%s: too long a body: %d, %d", tc.name, got[1].Status, got[2].Status)
		}
		if tc.name == "outside-http" && got[3].Status != 403 {
			t.Errorf("an answer that is neither yes nor no: %d", got[3].Status)
		}
		if tc.name == "outside-grpc" && (h.Get("x-checked") != "spiffe://cluster.local/ns/app/sa/client" || got[0].Header.Get("x-gate") != "open") {
			t.Errorf("the service was told of %q; the client saw %v", h.Get("x-checked"), got[0].Header)
		}
		m.logged(`"dst.service":"`+tc.name+`.app.svc.cluster.local"`, `"response_flags":"UAEX"`, `"policy":"`+tc.name+`"`)
	}
	m.counted("ambit_extauthz_requests_total", "app/helper.app", `decision="denied"`)
}

// While the service cannot be asked requests are refused, or let in if so wished.
func TestExternalAuthorizationAway(t *testing.T) {
	m := use(t)
	m.apply(helpers + askedOutside("outside-away", `
protocol: GRPC
backendRef: {name: away, port: 9000}
`) + askedOutside("outside-deaf", `
protocol: HTTP
backendRef: {name: helper, port: 9999}
`) + askedOutside("outside-open", `
protocol: GRPC
backendRef: {name: away, port: 9000}
failOpen: true
`) + askedOutside("outside-nobody", `
protocol: GRPC
backendRef: {name: nobody, port: 9000}
failOpen: true
`) + service("outside-rule", "v1") + policy("ExternalAuthorizationPolicy", "outside-rule", `
protocol: GRPC
backendRef: {name: helper, port: 9000}
`) + route("outside-rule", "outside-rule", `
  - matches: [{path: {value: /asked}}]
    filters: [{type: ExtensionRef, extensionRef: {group: ambit-mesh.io, kind: ExternalAuthorizationPolicy, name: outside-rule}}]
    backendRefs: [{name: outside-rule, port: 80}]
  - matches: [{path: {value: /gone}}]
    filters: [{type: ExtensionRef, extensionRef: {group: ambit-mesh.io, kind: ExternalAuthorizationPolicy, name: nobody}}]
    backendRefs: [{name: outside-rule, port: 80}]
  - backendRefs: [{name: outside-rule, port: 80}]
`))
	for url, want := range map[string]int{
		"outside-away": 503, "outside-deaf": 503, "outside-open": 200, "outside-rule/asked": 402, "outside-rule/gone": 500, "outside-rule/free": 200,
	} {
		m.until(url, request{URL: "http://" + url}, status(want))
	}
	// A service that does not exist is a mistake of the policy, and not somebody
	// who is away: that keeps requests out.
	if r := m.get("http://outside-nobody/"); r.Status != 500 {
		t.Errorf("a policy that names nobody: %d", r.Status)
	}
}
