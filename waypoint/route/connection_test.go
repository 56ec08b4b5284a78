package route_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

var (
	serverNamesGen = rapid.SampledFrom([]string{"a.x", "*.x", "b.a.x", "*.a.x", "A.X.", "x", "*.y"})
	askedGen       = rapid.SampledFrom([]string{"a.x", "A.x", "b.a.x", "c.b.a.x", "x", "y", "b.y.", "", ".x", ".", "a..x"})
)

func genConnectionTable(kind waypoint.RouteKind) func(t *rapid.T) *waypoint.RouteTable {
	return func(t *rapid.T) *waypoint.RouteTable {
		out := &waypoint.RouteTable{}
		for i := range rapid.IntRange(0, 6).Draw(t, "routes") {
			r := &waypoint.Route{
				Kind: kindOf(kind), Namespace: "a", Name: fmt.Sprintf("r%d", rapid.IntRange(0, 9).Draw(t, "name")),
				Rules:       []*waypoint.Rule{{Name: fmt.Sprint(i), Backends: split(backend("a/x", 1)).Backends}},
				ServerNames: rapid.SliceOfN(serverNamesGen, 0, 3).Draw(t, "names"),
			}
			if s := rapid.IntRange(0, 2).Draw(t, "created"); s > 0 {
				r.Created = &timestamppb.Timestamp{Seconds: int64(s)}
			}
			out.Routes = append(out.Routes, r)
		}
		return out
	}
}

func kindOf(k waypoint.RouteKind) string {
	if k == waypoint.RouteKind_ROUTE_KIND_TLS {
		return "TLSRoute"
	}
	return "TCPRoute"
}

// slowConnection judges every route by itself: an exact name before a wildcard,
// a longer one before a shorter, any before none.
func slowConnection(table *waypoint.RouteTable, tls bool, asked string) (best int) {
	best = -1
	score := func(i int) int {
		top := -1
		if len(table.Routes[i].ServerNames) == 0 || !tls {
			return 0
		}
		asked := strings.TrimSuffix(strings.ToLower(asked), ".")
		for _, n := range table.Routes[i].ServerNames {
			n = strings.TrimSuffix(strings.ToLower(n), ".")
			suffix, wild := strings.CutPrefix(n, "*")
			switch {
			case n == asked:
				top = max(top, 1000)
			case wild && strings.HasSuffix(asked, suffix) && len(asked) > len(suffix):
				top = max(top, len(suffix))
			}
		}
		return top
	}
	for i, r := range table.Routes {
		if score(i) < 0 {
			continue
		}
		if best < 0 || score(i) > score(best) {
			best = i
			continue
		}
		b := table.Routes[best]
		older := slowCreated(r) < slowCreated(b) || slowCreated(r) == slowCreated(b) && r.Name < b.Name
		if score(i) == score(best) && older {
			best = i
		}
	}
	return best
}

// Connections find the route that the reference finds, and Explain says so.
func TestConnectionsAgreeWithReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom([]waypoint.RouteKind{waypoint.RouteKind_ROUTE_KIND_TLS, waypoint.RouteKind_ROUTE_KIND_TLS, waypoint.RouteKind_ROUTE_KIND_TCP}).Draw(t, "kind")
		table := rapid.Custom(genConnectionTable(kind)).Draw(t, "table")
		f, problems := route.Compile(&waypoint.Frontend{Ports: []*waypoint.Port{{Number: 443, Kind: kind, Producer: table}}})
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		for range 8 {
			asked := askedGen.Draw(t, "asked")
			want := slowConnection(table, kind == waypoint.RouteKind_ROUTE_KIND_TLS, asked)
			d, x := f.MatchConnection(client("b"), 443, asked), f.ExplainConnection(client("b"), 443, asked)
			if want < 0 {
				if d.Outcome != route.NoRoute || x.Outcome != "no_route" {
					t.Fatalf("%q: %v %v", asked, d.Outcome, d.Rule)
				}
				continue
			}
			if d.Outcome != route.Matched || d.Rule.Name != fmt.Sprint(want) || x.Rule.Name != d.Rule.Name {
				t.Fatalf("%q: %v %v, want %d\n%s", asked, d.Outcome, d.Rule, want, x)
			}
		}
	})
}

// What a connection cannot be told apart by is refused and not guessed.
func TestInvalidConnectionRoutes(t *testing.T) {
	for name, r := range map[string]*waypoint.Route{
		"server_names[0]": {ServerNames: []string{"*.*.x"}, Rules: []*waypoint.Rule{filtered()}},
		"rules":           {ServerNames: []string{"a.x"}},
		"matches":         {Rules: []*waypoint.Rule{{Matches: []*waypoint.Match{{Method: "GET"}}}}},
		"filters":         {Rules: []*waypoint.Rule{filtered(&waypoint.Filter{Type: &waypoint.Filter_Redirect{Redirect: &waypoint.Redirect{}}})}},
	} {
		r.Kind, r.Namespace, r.Name = "TLSRoute", "shop", "t"
		other := &waypoint.Route{Kind: "TLSRoute", Namespace: "shop", Name: "z", ServerNames: []string{"*.x"}, Rules: []*waypoint.Rule{filtered()}}
		f, problems := route.Compile(frontend(waypoint.RouteKind_ROUTE_KIND_TLS, r, other))
		asked := "a.x"
		if len(r.ServerNames) == 0 {
			asked = "a.other"
		}
		d := f.MatchConnection(route.Client{}, 80, asked)
		if d.Outcome != route.Invalid || len(problems) != 1 || problems[0].Field != name || problems[0].Object != "TLSRoute shop/t" {
			t.Errorf("%s: %+v %v", name, d, problems)
		}
	}
	f, _ := route.Compile(everything())
	if d := f.MatchConnection(client("b"), 80, ""); d.Outcome != route.Invalid || !strings.Contains(d.Reason, "is not HTTP") {
		t.Errorf("%+v", d)
	}
}

// UDP ports are apart from those of TCP, and have UDPRoutes alone.
func TestUDPPorts(t *testing.T) {
	rule := func(service string) []*waypoint.Rule { return []*waypoint.Rule{split(backend(service, 1))} }
	udp := &waypoint.Port{
		Number: 53, Kind: waypoint.RouteKind_ROUTE_KIND_UDP,
		Producer:  &waypoint.RouteTable{Routes: []*waypoint.Route{{Kind: "UDPRoute", Namespace: "shop", Name: "all", Rules: rule("shop/all")}}},
		Consumers: []*waypoint.ConsumerTable{{Namespace: "b", Table: &waypoint.RouteTable{Routes: []*waypoint.Route{{Kind: "UDPRoute", Namespace: "b", Name: "mine", Rules: rule("shop/mine")}}}}},
	}
	pb := &waypoint.Frontend{
		Namespace: "shop", Name: "dns", UdpPorts: []*waypoint.Port{udp, {Number: 54, Fallback: split(backend("shop/own", 1))}},
		Ports: []*waypoint.Port{{Number: 53, Fallback: split(backend("shop/tcp", 1))}},
	}
	f, problems := route.Compile(pb)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, tc := range []struct {
		from string
		port uint16
		want string
	}{{"a", 53, "shop/all"}, {"b", 53, "shop/mine"}, {"b", 54, "shop/own"}} {
		d, x := f.MatchUDP(client(tc.from), tc.port), f.ExplainUDP(client(tc.from), tc.port)
		if d.Outcome != route.Matched || d.Rule.Backends[0].Service != tc.want || x.Backends[0].Service != tc.want {
			t.Errorf("%s to %d: %+v", tc.from, tc.port, d)
		}
	}
	if d := f.MatchConnection(client("a"), 53, ""); d.Outcome != route.Matched || d.Rule.Backends[0].Service != "shop/tcp" {
		t.Errorf("TCP: %+v", d)
	}
	if d := f.MatchUDP(client("a"), 80); d.Outcome != route.NoPort || !strings.Contains(d.Reason, "UDP port") {
		t.Errorf("no such port: %+v", d)
	}
	pb.Ports[0].Kind, pb.UdpPorts[1].Kind = waypoint.RouteKind_ROUTE_KIND_UDP, waypoint.RouteKind_ROUTE_KIND_TCP
	f, problems = route.Compile(pb)
	if len(problems) != 2 || f.MatchConnection(client("a"), 53, "").Outcome != route.Invalid || f.MatchUDP(client("a"), 54).Outcome != route.Invalid {
		t.Errorf("routes of the other sort: %v", problems)
	}
}
