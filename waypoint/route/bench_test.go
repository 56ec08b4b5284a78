package route_test

import (
	"fmt"
	"testing"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// layout is a way in which many rules of one host are told apart.
type layout struct {
	name string
	kind waypoint.RouteKind
	// match is that of rule n, request one for it.
	match   func(n int) *waypoint.Match
	request func(n int) *message.Request
}

func get(path string, fields ...message.Field) *message.Request {
	return &message.Request{Method: "GET", Scheme: "http", Authority: "shop.example:80", Path: path, Fields: append(message.Fields{
		{Name: "user-agent", Value: "curl/8.0"}, {Name: "accept", Value: "*/*"}, {Name: "x-request-id", Value: "0d7ff1a2-7a2c-4d43-b5c5-5f6e3e6f9a11"},
	}, fields...)}
}

func onPath(m *waypoint.Match, exact string) *waypoint.Match {
	m.Path = &waypoint.PathMatch{Type: &waypoint.PathMatch_Exact{Exact: exact}}
	return m
}

func onPrefix(m *waypoint.Match, prefix string) *waypoint.Match {
	m.Path = &waypoint.PathMatch{Type: &waypoint.PathMatch_Prefix{Prefix: prefix}}
	return m
}

func equal(name, value string) *waypoint.ValueMatch {
	return &waypoint.ValueMatch{Name: name, Type: &waypoint.ValueMatch_Exact{Exact: value}}
}

var layouts = []layout{
	{
		name:    "exact",
		match:   func(n int) *waypoint.Match { return onPath(&waypoint.Match{}, fmt.Sprintf("/api/v1/item-%d", n)) },
		request: func(n int) *message.Request { return get(fmt.Sprintf("/api/v1/item-%d?a=b", n)) },
	},
	{
		name:    "prefix",
		match:   func(n int) *waypoint.Match { return onPrefix(&waypoint.Match{}, fmt.Sprintf("/api/v1/item-%d", n)) },
		request: func(n int) *message.Request { return get(fmt.Sprintf("/api/v1/item-%d/reviews/7", n)) },
	},
	{
		name: "prefix-nested",
		match: func(n int) *waypoint.Match {
			return onPrefix(&waypoint.Match{}, fmt.Sprintf("/t%d/a%d/b%d", n%10, n/10%10, n/100))
		},
		request: func(n int) *message.Request { return get(fmt.Sprintf("/t%d/a%d/b%d/c", n%10, n/10%10, n/100)) },
	},
	{
		name: "header",
		match: func(n int) *waypoint.Match {
			return onPrefix(&waypoint.Match{Headers: []*waypoint.ValueMatch{equal("x-tenant", fmt.Sprintf("tenant-%d", n))}}, "/")
		},
		request: func(n int) *message.Request {
			return get("/cart", message.Field{Name: "x-tenant", Value: fmt.Sprintf("tenant-%d", n)})
		},
	},
	{
		name: "two-headers",
		match: func(n int) *waypoint.Match {
			return onPrefix(&waypoint.Match{Headers: []*waypoint.ValueMatch{
				equal("x-tenant", fmt.Sprintf("tenant-%d", n%100)), equal("x-version", fmt.Sprintf("v%d", n/100)),
			}}, "/")
		},
		request: func(n int) *message.Request {
			return get("/cart", message.Field{Name: "x-tenant", Value: fmt.Sprintf("tenant-%d", n%100)}, message.Field{Name: "x-version", Value: fmt.Sprintf("v%d", n/100)})
		},
	},
	{
		name: "header-names",
		match: func(n int) *waypoint.Match {
			return onPrefix(&waypoint.Match{Headers: []*waypoint.ValueMatch{equal(fmt.Sprintf("x-flag-%d", n), "on")}}, "/")
		},
		request: func(n int) *message.Request {
			return get("/cart", message.Field{Name: fmt.Sprintf("x-flag-%d", n), Value: "on"})
		},
	},
	{
		name:  "method",
		match: func(n int) *waypoint.Match { return onPrefix(&waypoint.Match{Method: fmt.Sprintf("M%d", n)}, "/") },
		request: func(n int) *message.Request {
			r := get("/cart")
			r.Method = fmt.Sprintf("M%d", n)
			return r
		},
	},
	{
		name: "query",
		match: func(n int) *waypoint.Match {
			return onPrefix(&waypoint.Match{QueryParams: []*waypoint.ValueMatch{equal("user", fmt.Sprintf("u%d", n))}}, "/")
		},
		request: func(n int) *message.Request { return get(fmt.Sprintf("/cart?page=3&user=u%d", n)) },
	},
	{
		name: "grpc", kind: waypoint.RouteKind_ROUTE_KIND_GRPC,
		match: func(n int) *waypoint.Match {
			return &waypoint.Match{Grpc: &waypoint.GRPCMethodMatch{Service: fmt.Sprintf("shop.v1.Service%d", n/10), Method: fmt.Sprintf("Method%d", n%10)}}
		},
		request: func(n int) *message.Request {
			return get(fmt.Sprintf("/shop.v1.Service%d/Method%d", n/10, n%10), message.Field{Name: "content-type", Value: "application/grpc"})
		},
	},
}

// frontendOf has n rules, the last of which the requests of a benchmark match, in
// routes of 16 rules.
func frontendOf(tb testing.TB, l layout, n int) *route.Frontend {
	tb.Helper()
	kind, object := l.kind, "HTTPRoute"
	if kind == waypoint.RouteKind_ROUTE_KIND_UNSPECIFIED {
		kind = waypoint.RouteKind_ROUTE_KIND_HTTP
	} else {
		object = "GRPCRoute"
	}
	table := &waypoint.RouteTable{}
	for i := range n {
		if i%16 == 0 {
			table.Routes = append(table.Routes, &waypoint.Route{Kind: object, Namespace: "shop", Name: fmt.Sprintf("r%d", i/16)})
		}
		r := table.Routes[len(table.Routes)-1]
		r.Rules = append(r.Rules, &waypoint.Rule{Index: uint32(i % 16), Matches: []*waypoint.Match{l.match(i)}, Backends: []*waypoint.WeightedBackend{backend("shop/a", 1)}})
	}
	f, problems := route.Compile(&waypoint.Frontend{Namespace: "shop", Name: "cart", Ports: []*waypoint.Port{{Number: 80, Kind: kind, Producer: table}}})
	if len(problems) > 0 {
		tb.Fatal(problems[0])
	}
	return f
}

func backend(service string, weight uint32) *waypoint.WeightedBackend {
	return &waypoint.WeightedBackend{Weight: weight, Backend: &waypoint.BackendRef{Service: service, Port: 80}}
}

// One request again and again: what the look-up itself costs.
func BenchmarkMatch(b *testing.B) {
	for _, l := range layouts {
		for _, n := range []int{10, 10_000} {
			f := frontendOf(b, l, n)
			b.Run(fmt.Sprintf("%s/rules=%d", l.name, n), func(b *testing.B) {
				req := l.request(n - 1)
				b.ReportAllocs()
				for b.Loop() {
					if d := f.Match(route.Client{}, 80, req); d.Outcome != route.Matched {
						b.Fatal(d.Reason)
					}
				}
			})
		}
	}
}

// Requests for every rule in turn, so that caches do not help: what 10,000 rules
// cost beside the memory that 10,000 requests are in, which the row of 10 rules
// has as well.
func BenchmarkMatchSpread(b *testing.B) {
	const spread = 10_000
	for _, l := range layouts {
		for _, n := range []int{10, spread} {
			f := frontendOf(b, l, n)
			requests := make([]*message.Request, spread)
			for i := range requests {
				requests[i] = l.request((i * 7919) % n)
			}
			b.Run(fmt.Sprintf("%s/rules=%d", l.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if d := f.Match(route.Client{}, 80, requests[i%spread]); d.Outcome != route.Matched {
						b.Fatal(d.Reason)
					}
				}
			})
		}
	}
}
