package waypoint_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/ambit-mesh/ambit/internal/testkit/sniff"
)

// outside is a host outside: an echo server, and a DNS server that knows it.
func outside() error {
	c, err := net.ListenPacket("udp", ":53")
	if err != nil {
		return err
	}
	errs := make(chan error, 2)
	go func() {
		errs <- (&dns.Server{PacketConn: c, Handler: dns.HandlerFunc(answerOutside)}).ActivateAndServe()
	}()
	go func() { errs <- echo() }()
	return <-errs
}

// answerOutside gives every name below example the address of this host, behind one
// that leads to whoever asks. Names that begin with "own." have that one alone, and
// those that begin with "at-10-0-0-1." that one.
func answerOutside(w dns.ResponseWriter, query *dns.Msg) {
	reply := new(dns.Msg).SetReply(query)
	q := query.Question[0]
	switch {
	case !strings.HasSuffix(q.Name, ".example."):
		reply.Rcode = dns.RcodeServerFailure // the next server knows
	case q.Qtype == dns.TypeA:
		add := func(a net.IP) {
			reply.Answer = append(reply.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: a})
		}
		if first, _, _ := strings.Cut(q.Name, "."); strings.HasPrefix(first, "at-") {
			add(net.ParseIP(strings.ReplaceAll(first[len("at-"):], "-", ".")))
			break
		}
		add(net.IPv4(127, 0, 0, 1))
		if list, err := net.InterfaceAddrs(); err == nil && !strings.HasPrefix(q.Name, "own.") {
			for _, a := range list {
				if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
					add(n.IP)
				}
			}
		}
	}
	_ = w.WriteMsg(reply)
}

// nameserver has a pod ask a server before its others, or, with "", no longer.
func nameserver(server string) error {
	const file, note = "/etc/resolv.conf", " # of a test\n"
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var out strings.Builder
	if server != "" {
		out.WriteString("nameserver " + server + note)
	}
	for line := range strings.Lines(string(text)) {
		if !strings.HasSuffix(line, note) {
			out.WriteString(line)
		}
	}
	if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(response{})
}

// wiretap captures what a pod sends and receives until the test ends; the function
// that it gives tells what has been seen.
func (m *mesh) wiretap(pod string, needles ...string) func() sniff.Report {
	m.t.Helper()
	cmd := m.program(pod, "sniff", strings.Join(needles, "|"))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	out := bufio.NewReader(pipe)
	if line, err := out.ReadString('\n'); err != nil || line != "capturing\n" {
		m.t.Fatalf("the capture does not begin: %q %v", line, err)
	}
	return func() (r sniff.Report) {
		m.t.Helper()
		_, err := io.WriteString(in, "\n")
		var line []byte
		if err == nil {
			line, err = out.ReadBytes('\n')
		}
		if err == nil {
			err = json.Unmarshal(line, &r)
		}
		if err != nil {
			m.t.Fatalf("the capture: %v", err)
		}
		return r
	}
}

// externalService is one with a waypoint of its own, whose label says which.
func externalService(name, waypoint, spec string) string {
	return fmt.Sprintf(`
---
apiVersion: ambit-mesh.io/v1alpha1
kind: ExternalService
metadata: {name: %s, namespace: app, labels: {ambit-mesh.io/use-waypoint: %s}}
spec:
  ports: [{name: http, port: 80, targetPort: 8080, protocol: HTTP}, {name: tcp, port: 90, targetPort: 9090, protocol: TCP}, {name: tls, port: 443, targetPort: 8443, protocol: TLS}]
  %s
`, name, waypoint, spec)
}

// A host outside is reached through a waypoint, which resolves its name, and enforces
// what is said about it: by identity, by path, by routes.
func TestEgressThroughWaypoint(t *testing.T) {
	m := use(t)
	at := m.addresses("outside", "host-")
	var v4 string
	for _, a := range at {
		if netip.MustParseAddr(a).Is4() {
			v4 = a
		}
	}
	var ok response
	for _, pod := range []string{"wp", "client"} { // which finds out there whether a name below a wildcard exists
		m.run(pod, nil, &ok, "nameserver", v4)
		defer m.run(pod, nil, &ok, "nameserver", "")
	}
	m.apply(externalService("partner", "wp", `hosts: [api.partner.example, "*.wild.example"]`) +
		externalService("fixed", "wp", "hosts: [fixed.example.org]\n  resolution: Static\n  endpoints: [{address: "+v4+"}]") +
		externalService("own", "wp", "hosts: [own.partner.example]") +
		externalService("lost", "missing", "hosts: [lost.example.org]\n  resolution: Static\n  endpoints: [{address: "+v4+"}]") +
		externalService("loose", "none", "hosts: [loose.example.org]\n  resolution: Static\n  endpoints: [{address: "+v4+"}]") + `
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: fixed, namespace: app}
spec:
  parentRefs: [{group: ambit-mesh.io, kind: ExternalService, name: fixed}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /v1}}]
    filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-routed, value: outside}]}}]
    backendRefs: [{group: ambit-mesh.io, kind: ExternalService, name: fixed, port: 80}]
` + policy("AuthorizationPolicy", "egress", `
targetRefs: [{group: ambit-mesh.io, kind: ExternalService, name: partner}]
action: ALLOW
enforcementLevel: Application
rules:
- name: reads
  sources: [{type: ServiceAccount, serviceAccount: {name: client}}]
  application: {methods: [GET], paths: [{type: PathPrefix, value: /open}]}
`) + policy("AuthorizationPolicy", "loose", `
targetRefs: [{group: ambit-mesh.io, kind: ExternalService, name: loose}]
action: DENY
rules:
- name: testers
  sources: [{type: ServiceAccount, serviceAccount: {name: tester}}]
`) + policy("RateLimitPolicy", "fixed", `
targetRefs: [{group: ambit-mesh.io, kind: ExternalService, name: fixed}]
rules: [{name: one, matches: [{path: {type: Exact, value: /v1/limited}}], requests: 1, unit: Hour}]
`))
	m.condition("ExternalService", "partner", `"WaypointBound"`, `"Bound"`)
	m.until("the host is reached", request{URL: "http://api.partner.example/open"}, status(200))
	seen := m.wiretap("client", "secret-of-the-client", "GET /open")

	t.Run("policy", func(t *testing.T) {
		m := &mesh{t, m.bed}
		for _, tc := range []struct {
			from, url, method string
			want              int
		}{
			{"client", "http://api.partner.example/open/x", "GET", 200},
			{"client", "http://api.partner.example/shut", "GET", 403},
			{"client", "http://api.partner.example/open/../shut", "GET", 403},
			{"client", "http://api.partner.example/open", "POST", 403},
			{"tester", "http://api.partner.example/open", "GET", 403},
			{"client", "http://some.wild.example/open", "GET", 200},
			{"client", "http://a.b.wild.example/shut", "GET", 403},
		} {
			if got := m.askFrom(tc.from, request{URL: tc.url, Method: tc.method})[0]; got.Status != tc.want {
				t.Errorf("%s %s %s: %d %s, want %d", tc.from, tc.method, tc.url, got.Status, got.Error, tc.want)
			}
		}
		m.logged(`"dst.service":"api.partner.example"`, `considered AuthorizationPolicy app/egress`, `"response_flags":"DENY"`, `"src.identity":"spiffe://cluster.local/ns/app/sa/tester"`)
		m.logged(`"dst.service":"*.wild.example"`, `"host":"some.wild.example"`, `"status":200`)
		m.counted("ambit_requests_total", "api.partner.example", `"200"`)
		m.observed(func(call string) bool {
			return strings.Contains(call, "api.partner.example") && strings.Contains(call, `"verdict":"denied"`)
		}, "--verdict", "denied", "--last", "200")
	})
	t.Run("route", func(t *testing.T) {
		m := &mesh{t, m.bed}
		m.until("the route is in force", request{URL: "http://fixed.example.org/other"}, status(404))
		if got := m.get("http://fixed.example.org/v1/x"); got.Status != 200 || got.Seen.Header.Get("x-routed") != "outside" {
			t.Errorf("%+v", got)
		}
		m.until("the limit is reached", request{URL: "http://fixed.example.org/v1/limited"}, status(429))
	})
	t.Run("refused by name", func(t *testing.T) {
		m := &mesh{t, m.bed}
		if got := m.get("http://own.partner.example/"); got.Status != 502 || !strings.Contains(got.Header.Get("proxy-status"), "leads to the waypoint itself") {
			t.Errorf("a name that leads to the waypoint: %+v", got)
		}
		if got := m.get("http://lost.example.org/"); got.Error == "" {
			t.Errorf("without its waypoint: %+v", got)
		}
		m.accessLog(`"dst.service":"lost.example.org"`, "there is no Gateway app/missing")
		if got := m.get("http://loose.example.org/"); got.Error == "" {
			t.Errorf("with a policy that nobody enforces: %+v", got)
		}
		m.accessLog(`"dst.service":"loose.example.org"`, "AuthorizationPolicy app/loose")
	})
	t.Run("on the wire", func(t *testing.T) {
		m := &mesh{t, m.bed}
		got := m.ask(request{URL: "http://api.partner.example/open", Header: map[string]string{"x-secret": "secret-of-the-client"}})[0]
		if got.Status != 200 || got.Seen.Header.Get("x-secret") != "secret-of-the-client" {
			t.Fatalf("%+v", got)
		}
		if r := seen(); len(r.Found) > 0 || r.MeshBytes == 0 || r.Dropped > 0 {
			t.Errorf("the client's pod sent %+v", r)
		}
	})
}

// The name of a host without a waypoint is resolved with the resolver of the pod, when
// a connection is opened; so is a name below a wildcard.
func TestEgressResolvedByNode(t *testing.T) {
	m := use(t)
	var server string
	for _, a := range m.addresses("outside", "host-") {
		if netip.MustParseAddr(a).Is4() {
			server = a
		}
	}
	m.apply(externalService("direct", "none", `hosts: [direct.other.example, "*.tame.example"]`))
	var ok response
	m.run("client", nil, &ok, "nameserver", server)
	defer m.run("client", nil, &ok, "nameserver", "")
	// The first address of the name is the pod's own loopback, where nobody listens.
	m.until("the host is reached", request{URL: "http://direct.other.example/x"}, status(200))
	if got := m.get("http://very.tame.example/y"); got.Status != 200 || got.Seen.Host != "very.tame.example" {
		t.Errorf("below the wildcard: %+v", got)
	}
	m.accessLog(`"dst.service":"direct.other.example"`, `"dst.host":"direct.other.example"`)
	m.accessLog(`"dst.service":"*.tame.example"`, `"dst.host":"very.tame.example"`)
}

// A host outside that turns out to be in the mesh is never reached in plaintext: a
// waypoint, which would have to speak for its client to a node that does not believe it,
// refuses it; the client's own node connects as if the address had been asked for.
func TestEgressIntoTheMesh(t *testing.T) {
	m := use(t)
	server, pod := m.v4("outside", "host-")[0], m.v4("app", "echo-v1")[0]
	var ok response
	for _, p := range []string{"wp", "client"} {
		m.run(p, nil, &ok, "nameserver", server)
		defer m.run(p, nil, &ok, "nameserver", "")
	}
	at := "at-" + strings.ReplaceAll(pod, ".", "-")
	const vip = "10.96.77.7"
	m.apply(strings.Replace(service("inward", "v1"), "spec:\n", "spec:\n  clusterIP: "+vip+"\n", 1) +
		externalService("by-name", "wp", "hosts: ["+at+".inward.example]") +
		externalService("by-address", "wp", "hosts: [address.inward.example]\n  resolution: Static\n  endpoints: [{address: "+pod+"}]") +
		externalService("by-service", "wp", "hosts: [service.inward.example]\n  resolution: Static\n  endpoints: [{address: "+vip+"}]") +
		externalService("no-waypoint", "none", "hosts: ["+at+".direct.example]") +
		externalService("no-waypoint-static", "none", "hosts: [static.direct.example]\n  resolution: Static\n  endpoints: [{address: "+pod+"}]"))
	m.until("the service answers", request{URL: "http://inward/"}, status(200))
	for host, what := range map[string]string{at + ".inward.example": "app/echo-v1", "address.inward.example": "app/echo-v1", "service.inward.example": "app/inward"} {
		got := m.until(host+" is refused", request{URL: "http://" + host + "/"}, status(502))
		if said := got.Header.Get("proxy-status"); !strings.Contains(said, "destination_ip_prohibited") || !strings.Contains(said, what) {
			t.Errorf("%s: %s", host, said)
		}
		m.logged(`"dst.service":"`+host+`"`, `"status":502`, `"response_flags":"PROHIBITED"`, `/sa/client"`, what)
	}
	m.counted("ambit_requests_total", `PROHIBITED`, "inward.example")
	if got := m.get("http://" + at + ".inward.example:90/"); got.Error == "" {
		t.Errorf("as a connection: %+v", got)
	}
	m.counted("ambit_waypoint_connections_total", `response_flags="PROHIBITED"`, "inward.example")

	for _, host := range []string{at + ".direct.example", "static.direct.example"} {
		got := m.until(host+" is reached", request{URL: "http://" + host + "/"}, status(200))
		if got.Header.Get("x-version") != "v1" {
			t.Errorf("%s: %+v", host, got)
		}
	}
	m.accessLog(`"direction":"outbound"`, `"dst.host":"`+at+`.direct.example"`, `"dst.identity":"spiffe://cluster.local/ns/app/sa/echo-v1"`)
	for _, line := range m.lines(`"direction":"inbound"`, `"dst.workload":"echo-v1`, `:8080"`) {
		if strings.Contains(line, `"src.identity":""`) || !strings.Contains(line, `"src.identity"`) {
			t.Errorf("a connection without an identity came to the pod: %s", line)
		}
	}
}

// lines are those of the ztunnels' access logs that have all of words.
func (m *mesh) lines(words ...string) (found []string) {
	m.t.Helper()
	for _, log := range ztunnelLogs {
		out, err := m.command(m.t.Context(), append([]string{"logs"}, log...)...).Output()
		if err != nil {
			m.t.Errorf("logs %v: %v", log, err)
			continue
		}
	lines:
		for line := range strings.Lines(string(out)) {
			for _, w := range words {
				if !strings.Contains(line, w) {
					continue lines
				}
			}
			found = append(found, line)
		}
	}
	return found
}
