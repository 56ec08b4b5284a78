package waypoint_test

import (
	"bufio"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// sealedHost is a host outside that speaks TLS, as an application names it: by HTTP, by
// HTTP/2, by bytes of whatever kind, and by TLS of its own.
func sealedHost(name, waypoint, hosts string) string {
	return fmt.Sprintf(`
---
apiVersion: ambit-mesh.io/v1alpha1
kind: ExternalService
metadata: {name: %s, namespace: app, labels: {ambit-mesh.io/use-waypoint: %s}}
spec:
  hosts: [%s]
  ports:
  - {name: http, port: 80, targetPort: 8443, protocol: HTTP}
  - {name: http2, port: 81, targetPort: 8443, protocol: HTTP2}
  - {name: bytes, port: 90, targetPort: 8443, protocol: TCP}
  - {name: hello, port: 91, targetPort: 9090, protocol: TCP}
  - {name: upgrade, port: 92, targetPort: 8080, protocol: HTTP}
  - {name: https, port: 443, targetPort: 8443, protocol: TLS}
`, name, waypoint, hosts)
}

// sealing is a BackendTLSPolicy about a host outside, with a ConfigMap of its own.
func sealing(name, target, ca, config, hostname string) string {
	return fmt.Sprintf(`
---
apiVersion: v1
kind: ConfigMap
metadata: {name: %[1]s-ca, namespace: app}
data:
  ca.crt: |
    %[3]s
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: %[1]s, namespace: app}
spec:
  targetRefs: [{group: ambit-mesh.io, kind: ExternalService, name: %[2]s}]
  validation:
    caCertificateRefs: [{group: "", kind: ConfigMap, name: %[4]s}]
    hostname: %[5]s
`, name, target, strings.ReplaceAll(strings.TrimSpace(ca), "\n", "\n    "), config, hostname)
}

// linger says something on a connection, and when the first line has come back prints
// that line; then it waits until the other end is done with the connection.
func linger(addr, say string) error {
	c, err := net.DialTimeout("tcp", addr, time.Minute)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	if _, err := io.WriteString(c, say); err != nil {
		return err
	}
	in := bufio.NewReader(c)
	line, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	fmt.Print(line)
	_, err = io.Copy(io.Discard, in)
	return json.NewEncoder(os.Stdout).Encode(!errors.Is(err, os.ErrDeadlineExceeded))
}

// An application speaks plain HTTP to a host outside, and its waypoint TLS: to the one
// that a BackendTLSPolicy names, under routes and policies, and to none otherwise. What
// leaves the waypoint's pod is never plaintext from then on.
func TestEgressTLS(t *testing.T) {
	m := use(t)
	server := m.v4("outside", "host-")[0]
	var ok response
	for _, pod := range []string{"wp", "client"} {
		m.run(pod, nil, &ok, "nameserver", server)
		defer m.run(pod, nil, &ok, "nameserver", "")
	}
	const host, secret = "http://api.sealed.example", "secret-of-the-request"
	world := sealedHost("sealed-host", "wp", `api.sealed.example, "*.wild.sealed.example"`) +
		sealedHost("sealed-guarded", "wp", "guarded.sealed.example") + sealedHost("sealed-unbound", "none", "unbound.sealed.example") +
		sealing("sealed-unbound", "sealed-unbound", "x", "sealed-unbound-ca", "secure.example.com") + `
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: sealed-host, namespace: app}
spec:
  parentRefs: [{group: ambit-mesh.io, kind: ExternalService, name: sealed-host, port: 80}]
  rules:
  - filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-routed, value: sealed}]}}]
    backendRefs: [{group: ambit-mesh.io, kind: ExternalService, name: sealed-host, port: 80}]
` + policy("AuthorizationPolicy", "sealed-guarded", `
targetRefs: [{group: ambit-mesh.io, kind: ExternalService, name: sealed-guarded}]
action: DENY
enforcementLevel: Application
rules: [{name: shut, application: {paths: [{type: PathPrefix, value: /shut}]}}]
`)
	m.apply(world)
	seen := m.wiretap("wp", secret, "GET /sealed", "GET /before")
	m.until("without a policy the host gets plain HTTP, and says what it thinks of that", request{URL: host + "/before"}, func(r response) bool {
		return r.Status == 400 && strings.Contains(r.Body, "HTTP request to an HTTPS server")
	})
	if r := seen(); r.Found["GET /before"] == 0 {
		t.Fatalf("what is sent in plaintext is not seen: %+v", r)
	}
	var ca string
	m.run("client", nil, &ca, "certificate", "api.sealed.example:443")

	var passedOn, upgraded bool
	passedOnEnds := m.converse("client", nil, "hello from v1", &passedOn, "linger", "api.sealed.example:91", "")
	upgradedEnds := m.converse("client", nil, "HTTP/1.1 101 Switching Protocols", &upgraded, "linger", "api.sealed.example:92",
		"GET /upgrade HTTP/1.1\r\nHost: api.sealed.example\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n")

	world += sealing("sealed-guarded", "sealed-guarded", ca, "sealed-guarded-ca", "secure.example.com")
	m.apply(world + sealing("sealed-host", "sealed-host", ca, "sealed-host-ca", "secure.example.com"))
	m.until("requests go over TLS", request{URL: host + "/"}, status(200))
	passedOnEnds()
	upgradedEnds()
	if !passedOn || !upgraded {
		t.Errorf("in plaintext still: bytes %v, an upgrade %v", !passedOn, !upgraded)
	}
	m.condition("BackendTLSPolicy", "sealed-host", `"Accepted"`, `"ResolvedRefs"`, `"True"`, "secure.example.com")
	send := func(url string) response {
		return m.ask(request{URL: url, Header: map[string]string{"x-secret": secret}, Fresh: true})[0]
	}
	for url, want := range map[string]string{
		host + "/sealed":                      "HTTP/1.1",
		host + ":81/sealed":                   "HTTP/2.0",
		host + ":90/sealed":                   "HTTP/1.1",
		"http://a.wild.sealed.example/sealed": "HTTP/1.1",
	} {
		got := send(url)
		if got.Status != 200 || got.Seen.Proto != want || got.Seen.SNI != "secure.example.com" || got.Seen.Header.Get("x-secret") != secret || !strings.HasPrefix(url, "http://"+got.Seen.Host) {
			t.Errorf("%s: %+v", url, got)
		}
		if routed := got.Seen.Header.Get("x-routed"); (routed == "sealed") != (strings.Count(url, ":") == 1) {
			t.Errorf("%s: routed %q", url, routed)
		}
	}
	m.until("the other host's policies have arrived, too", request{URL: "http://guarded.sealed.example/sealed", Fresh: true}, status(200))
	for path, want := range map[string]int{"/sealed": 200, "/shut": 403} {
		if got := send("http://guarded.sealed.example" + path); got.Status != want {
			t.Errorf("%s under an AuthorizationPolicy: %+v", path, got)
		}
	}
	if r := seen(); len(r.Found) > 0 || r.OpenFlows["port 8443"] == 0 || r.Dropped > 0 {
		t.Errorf("the waypoint's pod sent %+v", r)
	}
	m.logged(`"dst.service":"api.sealed.example"`, `"status":200`, `"backend":"app/api.sealed.example"`)
	m.counted("ambit_requests_total", "api.sealed.example", `"200"`)

	other, err := selfSigned()
	if err != nil {
		t.Fatal(err)
	}
	wrong := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.Certificate[0]}))
	for _, tc := range []struct{ what, policy, said, condition string }{
		{"the certificate is for another name", sealing("sealed-host", "sealed-host", ca, "sealed-host-ca", "another.example.com"), "another.example.com", `"Accepted"`},
		{"another authority is trusted", sealing("sealed-host", "sealed-host", wrong, "sealed-host-ca", "secure.example.com"), "certificate", `"Accepted"`},
		{"the authority is missing", sealing("sealed-host", "sealed-host", ca, "missing", "secure.example.com"), "there is no ConfigMap app/missing", "NoValidCACertificate"},
		{"the port is not there", strings.Replace(sealing("sealed-host", "sealed-host", ca, "sealed-host-ca", "secure.example.com"), "name: sealed-host}]", "name: sealed-host, sectionName: web}]", 1), "has not", "TargetNotFound"},
	} {
		m.apply(world + tc.policy)
		got := m.until(tc.what, request{URL: host + "/sealed", Header: map[string]string{"x-secret": secret}}, func(r response) bool {
			return r.Status == 503 && strings.Contains(r.Header.Get("proxy-status"), tc.said)
		})
		if said := got.Header.Get("proxy-status"); !strings.Contains(said, "error=destination_unavailable") {
			t.Errorf("%s: %s", tc.what, said)
		}
		m.condition("BackendTLSPolicy", "sealed-host", tc.condition)
		for _, url := range []string{host + ":81/sealed", host + ":90/sealed", "http://a.wild.sealed.example/sealed"} {
			if got := send(url); got.Status != 503 && got.Error == "" {
				t.Errorf("%s: %s: %+v", tc.what, url, got)
			}
		}
	}
	m.logged(`"dst.service":"api.sealed.example"`, `"status":503`, `"response_flags":"UF"`, "has not")
	m.run("client", nil, &ca, "certificate", "api.sealed.example:443") // the client's own TLS is left alone
	if got := send("http://unbound.sealed.example/sealed"); got.Error == "" {
		t.Errorf("without a waypoint: %+v", got)
	}
	m.condition("ExternalService", "sealed-unbound", "WaypointRequired", "BackendTLSPolicy app/sealed-unbound")
	if r := seen(); len(r.Found) > 0 || r.Dropped > 0 {
		t.Errorf("the waypoint's pod sent %+v", r)
	}
	m.apply(world + sealing("sealed-host", "sealed-host", ca, "sealed-host-ca", "secure.example.com"))
	m.until("it is put right", request{URL: host + "/sealed"}, status(200))
}
