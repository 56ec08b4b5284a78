package waypoint_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestVersionsOfHTTP(t *testing.T) {
	m := use(t)
	m.apply(service("versions", "v1"))
	m.until("the service answers", request{URL: "http://versions/"}, status(200))
	got := m.ask(
		request{URL: "http://versions/"}, request{URL: "http://versions/", HTTP2: true},
		request{URL: "http://versions:9080/"}, request{URL: "http://versions:9080/", HTTP2: true},
		request{URL: "http://versions/?trailer=behind"}, request{URL: "http://versions/?trailer=behind", HTTP2: true},
		request{URL: "http://versions/", Method: "HEAD"},
	)
	for i, r := range got {
		if r.Status != 200 {
			t.Errorf("request %d: %d %s", i, r.Status, r.Error)
		}
	}
	// The port named http is HTTP/1.1 to the backend whatever the client speaks;
	// where nobody says what a port is, the backend gets what the client speaks.
	for i, want := range []string{"HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/2.0"} {
		if got[i].Seen.Proto != want {
			t.Errorf("request %d: the backend saw %s, want %s", i, got[i].Seen.Proto, want)
		}
	}
	for _, i := range []int{4, 5} {
		if v := got[i].Trailer.Get("x-trailer"); v != "behind" {
			t.Errorf("request %d: trailer %q", i, v)
		}
	}
}

func TestBodies(t *testing.T) {
	m := use(t)
	m.apply(service("bodies", "v1"))
	m.until("the service answers", request{URL: "http://bodies/"}, status(200))
	const large = 64 << 20
	for _, h2 := range []bool{false, true} {
		got := m.ask(
			request{URL: "http://bodies/", Method: "POST", Body: 1, HTTP2: h2},
			request{URL: "http://bodies/", Method: "POST", Body: large, HTTP2: h2},
			request{URL: "http://bodies/", Method: "PUT", Body: large, Chunked: true, HTTP2: h2},
			request{URL: "http://bodies/?size=67108864", HTTP2: h2},
		)
		for i, want := range []int64{1, large, large} {
			if got[i].Status != 200 || got[i].Seen.Size != want {
				t.Errorf("HTTP/2 %v, upload %d: status %d, %d bytes, %s", h2, i, got[i].Status, got[i].Seen.Size, got[i].Error)
			}
		}
		if got[3].Size != large || got[3].Error != "" {
			t.Errorf("HTTP/2 %v, download: %d bytes, %s", h2, got[3].Size, got[3].Error)
		}
	}
}

func TestGRPC(t *testing.T) {
	m := use(t)
	m.apply(service("rpc", "v1") + `
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: rpc, namespace: app}
spec:
  parentRefs: [{group: "", kind: Service, name: rpc, port: 7070}]
  rules:
  - matches: [{method: {service: grpc.testing.TestService}}]
    backendRefs: [{name: rpc, port: 7070}]
`)
	m.until("the service answers", request{URL: "http://rpc/"}, status(200))
	m.until("the route is in force", request{URL: "http://rpc:7070/other.Service/Call", HTTP2: true, Method: "POST", Header: map[string]string{"content-type": "application/grpc"}}, func(r response) bool {
		return r.Header.Get("grpc-status") == "12"
	})
	var out response
	m.run("client", nil, &out, append([]string{"interop", "rpc:7070"}, slices.Sorted(maps.Keys(interopCases))...)...)
	if out.Status != 200 {
		t.Errorf("interop: %+v", out)
	}
}

func TestUpgrade(t *testing.T) {
	m := use(t)
	m.apply(service("upgraded", "v1"))
	m.until("the service answers", request{URL: "http://upgraded:80/"}, status(200))
	got := m.ask(request{URL: "http://upgraded:80/upgrade", Upgrade: "lines"}, request{URL: "http://upgraded:80/upgrade", Upgrade: "other"},
		request{URL: "http://upgraded:80/", Upgrade: "lines"})
	if got[0].Status != 101 || got[0].Body != "early and late" || got[0].Error != "" {
		t.Errorf("upgrade: %+v", got[0])
	}
	if got[1].Status != 400 {
		t.Errorf("an upgrade that the backend refuses: %+v", got[1])
	}
	if got[2].Status != 200 {
		t.Errorf("an upgrade that the backend does not care for: %+v", got[2])
	}
}

// CONNECT goes to the backend as every request does, and its tunnel is passed on.
func TestConnect(t *testing.T) {
	m := use(t)
	m.apply(service("proxied", "v1"))
	m.until("the service answers", request{URL: "http://proxied/"}, status(200))
	connect := func(to string) string { return "CONNECT " + to + " HTTP/1.1\r\nHost: " + to + "\r\n\r\n" }
	var got []recall
	m.run("client", []conversation{
		{Addr: "proxied:80", Say: connect("far.example:99"), Beat: "x\n", Every: 50 * time.Millisecond, Beats: 5, Leave: true},
		{Addr: "proxied:80", Say: connect("far.example:99") + "early\n", Leave: true},
		{Addr: "proxied:80", Say: connect("far.example:1"), Leave: true},
		{Addr: "proxied:80", Say: "CONNECT /path HTTP/1.1\r\nHost: proxied\r\n\r\n", Leave: true},
	}, &got, "converse")
	for i, want := range []struct{ head, tail string }{
		{"HTTP/1.1 200 ", "\r\n\r\ntunnel to far.example:99\nx\nx\nx\nx\nx\n"},
		{"HTTP/1.1 200 ", "\r\n\r\ntunnel to far.example:99\nearly\n"},
		{"HTTP/1.1 403 ", "not there\n"},
		{"HTTP/1.1 400 ", "\n"},
	} {
		if r := got[i]; !strings.HasPrefix(r.Heard, want.head) || !strings.HasSuffix(r.Heard, want.tail) || !r.Ended {
			t.Errorf("CONNECT %d: %q, ended %v, %s; want %q ... %q", i, r.Heard, r.Ended, r.Error, want.head, want.tail)
		}
	}
	m.logged(`"method":"CONNECT"`, `"host":"far.example:99"`, `"status":200`)
}

// A protocol in which the server speaks first is not held up by finding that out.
func TestServerSpeaksFirst(t *testing.T) {
	m := use(t)
	m.apply(service("greeting", "v1"))
	m.until("the service answers", request{URL: "http://greeting/"}, status(200))
	var out response
	m.run("client", nil, &out, "tcp", "greeting:9090", "well met")
	if out.Body != "hello from v1\nwell met\n" {
		t.Errorf("%q", out.Body)
	}
	if out.Took > 10*time.Second { // held up, it would wait for the client, which waits for it
		t.Errorf("the greeting took %s", out.Took)
	}
}

func TestTLSPassthrough(t *testing.T) {
	m := use(t)
	m.apply(service("sealed", "v1") + `
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: sealed, namespace: app}
spec:
  parentRefs: [{group: "", kind: Service, name: sealed, port: 443}]
  hostnames: [sealed]
  rules: [{backendRefs: [{name: sealed, port: 443}]}]
`)
	m.until("the name is let through", request{URL: "https://sealed/"}, version("v1"))
	m.until("another is not", request{URL: "https://sealed.app/", Fresh: true}, func(r response) bool { return r.Error != "" })
}
