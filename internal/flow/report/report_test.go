package report

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/prototext"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/internal/flow/join"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// record reads a record; what all have in common goes without saying.
func record(t *testing.T, text string) *flowpb.FlowRecord {
	t.Helper()
	if text == "" {
		return nil
	}
	r := &flowpb.FlowRecord{}
	base := `event: EVENT_ENDED start { seconds: 1700000000 } duration { nanos: 3250000 } protocol: PROTOCOL_TCP verdict: VERDICT_FORWARDED
		source { namespace: "shop" workload: "web-1" owner: "web" identity: "spiffe://td/ns/shop/sa/web" address: "\n\000\000\001" port: 4000 node: "n1" }
		destination { namespace: "shop" workload: "cart-1" owner: "cart" identity: "spiffe://td/ns/shop/sa/cart" address: "\n\000\000\002" port: 8080 node: "n2" }
		bytes_sent: 120 bytes_received: 31000 security { mutual_tls: true } `
	for _, part := range []string{base, text} {
		p := &flowpb.FlowRecord{}
		if err := prototext.Unmarshal([]byte(part), p); err != nil {
			t.Fatal(err)
		}
		merge(r, p)
	}
	if r.GetVerdict() == flowpb.Verdict_VERDICT_FAILED {
		r.BytesSent, r.BytesReceived = 0, 0 // it got nowhere
	}
	return r
}

func merge(dst, src *flowpb.FlowRecord) {
	m := dst.ProtoReflect()
	for fd, v := range src.ProtoReflect().Range {
		m.Set(fd, v)
	}
}

const (
	atStart = `reporter: REPORTER_SOURCE node: "n1" service { namespace: "shop" name: "cart" hostname: "cart.shop" port: 80 } `
	atEnd   = `reporter: REPORTER_DESTINATION node: "n2" `
	between = `reporter: REPORTER_WAYPOINT node: "n3" waypoint: "shop/wp" service { namespace: "shop" name: "cart" hostname: "cart.shop" port: 80 } `
	get     = `http { version: VERSION_HTTP11 method: "GET" path: "/items" status: 200 request_bytes: 0 response_bytes: 512 route: "HTTPRoute shop/cart" rule: "1" attempts: 1 } `
)

func TestCompact(t *testing.T) {
	for name, tc := range map[string]struct{ source, waypoint, destination, want string }{
		"a connection": {
			atStart, "", atEnd,
			"22:13:20.003 shop/web-1 -> shop/cart:80 (cart-1) tcp FORWARDED [3.25ms, 120B/31.0kB, mtls, n1 > n2]",
		},
		"without a service": {
			"", "", atEnd,
			"22:13:20.003 shop/web-1 -> shop/cart-1:8080 tcp FORWARDED [3.25ms, 120B/31.0kB, mtls, n2]",
		},
		"from outside of the mesh": {
			"", "", atEnd + `security {} source { address: "\300\250\000\001" port: 1234 }`,
			"22:13:20.003 192.168.0.1:1234 -> shop/cart-1:8080 tcp FORWARDED [3.25ms, 120B/31.0kB, plaintext, n2]",
		},
		"the other end has not told": {
			atStart + `tunnel_out: "a"`, "", "",
			"22:13:20.003 shop/web-1 -> shop/cart:80 (cart-1) tcp FORWARDED [3.25ms, 120B/31.0kB, mtls, n1 > (n2)]",
		},
		"neither end has told": {
			"", between + get + `tunnel_in: "a" tunnel_out: "b"`, "",
			"22:13:20.003 shop/web-1 -> shop/cart:80 (cart-1) http1 GET /items 200 FORWARDED [3.25ms, 0B/512B, mtls, (n1) > shop/wp > (n2), HTTPRoute shop/cart rule 1]",
		},
		"a waypoint that has not told": {
			atStart + `tunnel_out: "a" waypoint: "shop/wp"`, "", "",
			"22:13:20.003 shop/web-1 -> shop/cart:80 (cart-1) tcp FORWARDED [3.25ms, 120B/31.0kB, mtls, n1 > (shop/wp)]",
		},
		"denied by a rule, which only one end knows": {
			atStart + `verdict: VERDICT_DENIED reason: "tunnel refused: status 401"`, "",
			atEnd + `verdict: VERDICT_DENIED reason: "denied by policy: x" policy { namespace: "shop" name: "only-get" rule: "0" }`,
			"22:13:20.003 shop/web-1 -> shop/cart:80 (cart-1) tcp DENIED by shop/only-get rule 0 [3.25ms, 120B/31.0kB, mtls, n1 > n2]",
		},
		"denied because no rule allowed it": {
			atStart + `verdict: VERDICT_DENIED`, "", atEnd + `verdict: VERDICT_DENIED reason: "denied by policy: no rule allowed it: considered x" policy { rule: "no rule allowed it" }`,
			"22:13:20.003 shop/web-1 -> shop/cart:80 (cart-1) tcp DENIED (no rule allowed it: considered x) [3.25ms, 120B/31.0kB, mtls, n1 > n2]",
		},
		"never established": {
			atStart + `security {} verdict: VERDICT_FAILED reason: "no healthy endpoint" destination {}`, "", "",
			"22:13:20.003 shop/web-1 -> shop/cart:80 tcp FAILED (no healthy endpoint) [3.25ms, 0B/0B, none, n1]",
		},
		"a request": {
			atStart, between + get, atEnd,
			"22:13:20.003 shop/web-1 -> shop/cart:80 (cart-1) http1 GET /items 200 FORWARDED [3.25ms, 0B/512B, mtls, n1 > shop/wp > n2, HTTPRoute shop/cart rule 1]",
		},
		"a request with all that can happen": {
			"", between + `verdict: VERDICT_LIMITED http { version: VERSION_HTTP2 grpc: true grpc_status: 8 method: "POST" path: "/s/M" status: 200 attempts: 3
				mirrors: "shop/shadow.shop.svc.cluster.local" rate_limit { kind: "RateLimitPolicy" namespace: "shop" name: "slow" rule: "0" } fault { kind: "FaultPolicy" namespace: "shop" name: "chaos" } }
				audits { namespace: "shop" name: "trial" rule: "2" }`, "",
			"22:13:20.003 shop/web-1 -> shop/cart:80 (cart-1) grpc POST /s/M grpc 8 LIMITED by RateLimitPolicy shop/slow rule 0 " +
				"[3.25ms, 0B/0B, mtls, shop/wp, 3 attempts, mirrored to shop/shadow, fault of FaultPolicy shop/chaos] audit: shop/trial rule 2",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			p := NewPrinter(&b, Compact, time.UTC)
			if err := p.Print(Of(join.Call{Source: record(t, tc.source), Waypoint: record(t, tc.waypoint), Destination: record(t, tc.destination)})); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want+"\n", b.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTables(t *testing.T) {
	for f, want := range map[Format]string{
		Table: "" +
			"TIME          SOURCE                      DESTINATION                 PROTOCOL   REQUEST                         STATUS   VERDICT    SECURITY   DURATION    WHY\n" +
			"22:13:20.003  shop/web-1                  shop/cart:80                http1      GET /items                      200      forwarded  mtls       3.25ms      -\n" +
			"22:13:20.003  shop/web-1                  shop/cart:80                tcp        -                               -        forwarded  mtls       3.25ms      -\n",
		JSON: "",
	} {
		var b strings.Builder
		p := NewPrinter(&b, f, time.UTC)
		for _, c := range []join.Call{{Waypoint: record(t, between+get)}, {Source: record(t, atStart)}} {
			if err := p.Print(Of(c)); err != nil {
				t.Fatal(err)
			}
		}
		if f == Table {
			if diff := cmp.Diff(want, b.String()); diff != "" {
				t.Error(diff)
			}
			continue
		}
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		var l Line
		if len(lines) != 2 || json.Unmarshal([]byte(lines[0]), &l) != nil || l.HTTP.Path != "/items" || l.Kind != "request" {
			t.Errorf("%d lines, %+v", len(lines), l)
		}
	}
}

func TestEdges(t *testing.T) {
	s := NewEdges()
	add := func(c join.Call) { s.Add(Of(c)) }
	add(join.Call{Source: record(t, atStart), Destination: record(t, atEnd)})
	add(join.Call{Waypoint: record(t, between+get)})
	add(join.Call{Waypoint: record(t, between+`http { method: "GET" path: "/" status: 503 }`)})
	add(join.Call{Source: record(t, atStart+`verdict: VERDICT_DENIED start { seconds: 1700000100 }`)})
	add(join.Call{Destination: record(t, atEnd+`security {} source { address: "\300\250\000\001" port: 1234 }`)})
	add(join.Call{Destination: record(t, atEnd+`security {} source { address: "\300\250\000\001" port: 1235 }`)})
	add(join.Call{Source: record(t, `reporter: REPORTER_SOURCE security {} verdict: VERDICT_FAILED service { namespace: "shop" name: "gone" }`)})
	want := []Edge{
		{
			Source: Node{Name: "192.168.0.1", Kind: "address"}, Destination: Node{Namespace: "shop", Name: "cart", Kind: "workload", Identity: "spiffe://td/ns/shop/sa/cart"},
			Plaintext: 2, Connections: 2, Sent: 240, Received: 62000, LastSeen: time.Unix(1700000000, 0).UTC(),
		},
		{
			Source:      Node{Namespace: "shop", Name: "web", Kind: "workload", Identity: "spiffe://td/ns/shop/sa/web"},
			Destination: Node{Namespace: "shop", Name: "cart", Kind: "service", Identity: "spiffe://td/ns/shop/sa/cart"},
			Encrypted:   4, Connections: 2, Requests: 2, Errors: 1, Denied: 1, Sent: 240, Received: 62512, LastSeen: time.Unix(1700000100, 0).UTC(),
		},
		{
			Source:      Node{Namespace: "shop", Name: "web", Kind: "workload", Identity: "spiffe://td/ns/shop/sa/web"},
			Destination: Node{Namespace: "shop", Name: "gone", Kind: "service", Identity: "spiffe://td/ns/shop/sa/cart"},
			Connections: 1, Errors: 1, LastSeen: time.Unix(1700000000, 0).UTC(),
		},
	}
	got := s.List()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	var secured []string
	for _, e := range got {
		secured = append(secured, e.Secured())
	}
	if diff := cmp.Diff([]string{"no", "yes", ""}, secured); diff != "" {
		t.Error(diff)
	}
}

// A call of which only the destination's side is known is one of the pair's, and no
// pair of its own; one from a source that did not address the service stays.
func TestEdgesOfOneSide(t *testing.T) {
	s := NewEdges()
	for _, c := range []join.Call{
		{Destination: record(t, atEnd)},
		{Source: record(t, atStart), Destination: record(t, atEnd)},
		{Waypoint: record(t, between+get)},
	} {
		s.Add(Of(c))
	}
	got := s.List()
	if len(got) != 1 || got[0].Destination.Kind != "service" || got[0].Connections != 2 || got[0].Requests != 1 || got[0].Encrypted != 3 {
		t.Errorf("%+v", got)
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[uint64]string{0: "0B", 999: "999B", 1000: "1.0kB", 1_500_000: "1.5MB", 18446744073709551615: "18446.7PB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
