package route_test

import (
	"fmt"
	"testing"
	"time"

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

// Expressions are told apart by what they begin with, and tried one by one if that
// is the same.
func BenchmarkMatchRegex(b *testing.B) {
	l := layout{
		match: func(n int) *waypoint.Match {
			return &waypoint.Match{Path: &waypoint.PathMatch{Type: &waypoint.PathMatch_Regex{Regex: fmt.Sprintf("/api/item-%d/[a-z]+", n)}}}
		},
		request: func(n int) *message.Request { return get(fmt.Sprintf("/api/item-%d/reviews", n)) },
	}
	for _, n := range []int{10, 100, 10_000} {
		f, req := frontendOf(b, l, n), l.request(n-1)
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d := f.Match(route.Client{}, 80, req); d.Outcome != route.Matched {
					b.Fatal(d.Reason)
				}
			}
		})
	}
}

// A frontend is compiled anew when one of its routes changes.
func BenchmarkCompile(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		for _, l := range layouts[:4] {
			b.Run(fmt.Sprintf("%s/rules=%d", l.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					frontendOf(b, l, n)
				}
			})
		}
	}
}

func BenchmarkNormalizePath(b *testing.B) {
	for _, path := range []string{"/api/v1/items/17?x=1", "/api/./v1/%7eitems/../17"} {
		b.Run(path, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := route.NormalizePath(path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A client that sends a thousand headers or parameters, each of which some rule
// asks for, costs what it costs to look at them.
func BenchmarkMatchLongRequest(b *testing.B) {
	const n = 1000
	headers, query := get("/cart"), "/cart?"
	for i := range n {
		headers.Fields.Add(fmt.Sprintf("x-flag-%d", i), "off")
		query += fmt.Sprintf("flag-%d=off&", i)
	}
	byParam := layout{match: func(n int) *waypoint.Match {
		return onPrefix(&waypoint.Match{QueryParams: []*waypoint.ValueMatch{equal(fmt.Sprintf("flag-%d", n), "on")}}, "/")
	}}
	for name, c := range map[string]struct {
		l   layout
		req *message.Request
	}{"headers": {layouts[5], headers}, "params": {byParam, get(query)}} {
		f := frontendOf(b, c.l, 10_000)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d := f.Match(route.Client{}, 80, c.req); d.Outcome != route.NoRoute {
					b.Fatal(d.Rule)
				}
			}
		})
	}
}

// Ten thousand rules against ten: batches in turn, of each the fastest, so that
// what else the machine does has no part in it. "times" is one request again and
// again, "times-spread" a different one each time.
func BenchmarkTenThousandAgainstTen(b *testing.B) {
	for _, l := range layouts {
		b.Run(l.name, func(b *testing.B) {
			few, many := frontendOf(b, l, 10), frontendOf(b, l, 10_000)
			var same, spread [2][]*message.Request
			for i, n := range []int{10, 10_000} {
				same[i] = repeat(l.request(n-1), 10_000)
				for k := range 10_000 {
					spread[i] = append(spread[i], l.request((k*7919)%n))
				}
			}
			best := [4]time.Duration{1 << 40, 1 << 40, 1 << 40, 1 << 40}
			for i := 0; b.Loop(); i++ {
				from := i * 100 % 10_000
				best[0] = min(best[0], batch(few, same[0][from:from+100]))
				best[1] = min(best[1], batch(many, same[1][from:from+100]))
				best[2] = min(best[2], batch(few, spread[0][from:from+100]))
				best[3] = min(best[3], batch(many, spread[1][from:from+100]))
			}
			b.ReportMetric(float64(best[0])/100, "ns-of-10")
			b.ReportMetric(float64(best[1])/100, "ns-of-10000")
			b.ReportMetric(float64(best[1])/float64(best[0]), "times")
			b.ReportMetric(float64(best[3])/float64(best[2]), "times-spread")
		})
	}
}

func repeat(r *message.Request, n int) []*message.Request {
	out := make([]*message.Request, n)
	for i := range out {
		out[i] = r
	}
	return out
}

func batch(f *route.Frontend, requests []*message.Request) time.Duration {
	begin := time.Now()
	for _, r := range requests {
		f.Match(route.Client{}, 80, r)
	}
	return time.Since(begin)
}
