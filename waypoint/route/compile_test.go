package route_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

func withFilter(f *waypoint.Filter) func(*waypoint.Rule) {
	return func(r *waypoint.Rule) { r.Filters = append(r.Filters, f) }
}

func withMatch(m *waypoint.Match) func(*waypoint.Rule) {
	return func(r *waypoint.Rule) { r.Matches = append(r.Matches, m) }
}

func withHeader(v *waypoint.ValueMatch) func(*waypoint.Rule) {
	return withMatch(&waypoint.Match{Headers: []*waypoint.ValueMatch{v}})
}

// Whatever is wrong in a rule, requests that it matches are answered with 500,
// and the problem names route, rule and field.
func TestInvalidRules(t *testing.T) {
	minus := &durationpb.Duration{Seconds: -1}
	prefix := &waypoint.PathModifier{Type: &waypoint.PathModifier_Prefix{Prefix: "/b"}}
	for field, spoil := range map[string]func(*waypoint.Rule){
		"matches[0].path.regex":                     withMatch(&waypoint.Match{Path: &waypoint.PathMatch{Type: &waypoint.PathMatch_Regex{Regex: "/(a"}}}),
		"matches[0].path":                           withMatch(&waypoint.Match{Path: &waypoint.PathMatch{}}),
		"matches[0].path.exact":                     withMatch(onPath(&waypoint.Match{}, "a")),
		"matches[0].path.prefix":                    withMatch(onPrefix(&waypoint.Match{}, "/a%2fb")),
		"matches[0].headers[0].regex":               withHeader(&waypoint.ValueMatch{Name: "x", Type: &waypoint.ValueMatch_Regex{Regex: "*"}}),
		"matches[0].headers[0]":                     withHeader(&waypoint.ValueMatch{Name: "x"}),
		"matches[0].headers[0].name":                withHeader(equal("x y", "1")),
		"matches[0].method":                         withMatch(&waypoint.Match{Method: "G E T"}),
		"matches[0].query_params[0]":                withMatch(&waypoint.Match{QueryParams: []*waypoint.ValueMatch{{Name: "x"}}}),
		"matches[0].grpc.service":                   withMatch(&waypoint.Match{Grpc: &waypoint.GRPCMethodMatch{Service: "(", Regex: true}}),
		"filters[0]":                                withFilter(&waypoint.Filter{}),
		"filters[0].redirect.status":                withFilter(&waypoint.Filter{Type: &waypoint.Filter_Redirect{Redirect: &waypoint.Redirect{Status: 200}}}),
		"filters[0].redirect.scheme":                withFilter(&waypoint.Filter{Type: &waypoint.Filter_Redirect{Redirect: &waypoint.Redirect{Scheme: "ftp"}}}),
		"filters[0].redirect.port":                  withFilter(&waypoint.Filter{Type: &waypoint.Filter_Redirect{Redirect: &waypoint.Redirect{Port: 70_000}}}),
		"filters[0].redirect.hostname":              withFilter(&waypoint.Filter{Type: &waypoint.Filter_Redirect{Redirect: &waypoint.Redirect{Hostname: "a/b"}}}),
		"filters[0].rewrite.path":                   withFilter(&waypoint.Filter{Type: &waypoint.Filter_Rewrite{Rewrite: &waypoint.Rewrite{Path: &waypoint.PathModifier{}}}}),
		"filters[0].rewrite.path.full":              withFilter(&waypoint.Filter{Type: &waypoint.Filter_Rewrite{Rewrite: &waypoint.Rewrite{Path: &waypoint.PathModifier{Type: &waypoint.PathModifier_Full{Full: "b"}}}}}),
		"filters[0].mirror":                         withFilter(&waypoint.Filter{Type: &waypoint.Filter_Mirror{Mirror: &waypoint.Mirror{Backend: backend("shop/a", 1).Backend}}}),
		"filters[0].cors.allow_origins[0]":          withFilter(&waypoint.Filter{Type: &waypoint.Filter_Cors{Cors: &waypoint.CORS{AllowOrigins: []string{"a.com"}}}}),
		"filters[0].external_authorization":         withFilter(&waypoint.Filter{Type: &waypoint.Filter_ExternalAuthorization{ExternalAuthorization: &waypoint.ExternalAuthorization{Backend: backend("shop/a", 1).Backend}}}),
		"filters[0].external_authorization.backend": withFilter(&waypoint.Filter{Type: &waypoint.Filter_ExternalAuthorization{ExternalAuthorization: &waypoint.ExternalAuthorization{FailOpen: true, Backend: &waypoint.BackendRef{Invalid: "gone"}, Protocol: &waypoint.ExternalAuthorization_Http{}}}}),
		"filters[0].request_headers.set[0].value":   withFilter(&waypoint.Filter{Type: &waypoint.Filter_RequestHeaders{RequestHeaders: &waypoint.HeaderModifier{Set: []*waypoint.Header{{Name: "a", Value: "b\r\nc: d"}}}}}),
		"filters": func(r *waypoint.Rule) {
			withFilter(everything().Ports[0].Producer.Routes[0].Rules[0].Filters[1])(r)
			withFilter(&waypoint.Filter{Type: &waypoint.Filter_Redirect{Redirect: &waypoint.Redirect{}}})(r)
		},
		"backends[0].weight":    func(r *waypoint.Rule) { r.Backends[0].Weight = 2_000_000 },
		"timeouts.idle":         func(r *waypoint.Rule) { r.Timeouts = &waypoint.Timeouts{Idle: minus} },
		"retry.codes[0]":        func(r *waypoint.Rule) { r.Retry = &waypoint.Retry{Codes: []uint32{200}} },
		"retry.on[0]":           func(r *waypoint.Rule) { r.Retry = &waypoint.Retry{On: []waypoint.Retry_On{9}} },
		"retry.grpc_codes[0]":   func(r *waypoint.Rule) { r.Retry = &waypoint.Retry{GrpcCodes: []string{"MAYBE"}} },
		"session_persistence":   func(r *waypoint.Rule) { r.SessionPersistence = &waypoint.SessionPersistence{Name: "a"} },
		"faults[0].abort.share": func(r *waypoint.Rule) { r.Faults = []*waypoint.Fault{{Abort: &waypoint.Abort{Share: 1_000_001}}} },
		"faults[0].matches[0].path.regex": func(r *waypoint.Rule) {
			r.Faults = []*waypoint.Fault{{Matches: []*waypoint.Match{{Path: &waypoint.PathMatch{Type: &waypoint.PathMatch_Regex{Regex: "("}}}}}}
		},
		"rate_limits[0].unit": func(r *waypoint.Rule) { r.RateLimits = []*waypoint.RateLimit{{Requests: 1}} },
		"rate_limits[0].key[0].type": func(r *waypoint.Rule) {
			r.RateLimits = []*waypoint.RateLimit{{Unit: durationpb.New(time.Second), Key: []*waypoint.RateLimitKey{{}}}}
		},
		"tracing.sampling": func(r *waypoint.Rule) { r.Tracing = &waypoint.Tracing{Sampling: 1_000_001} },
		"filters[0].rewrite.path.prefix": func(r *waypoint.Rule) {
			withMatch(onPath(&waypoint.Match{}, "/"))(r)
			withFilter(&waypoint.Filter{Type: &waypoint.Filter_Rewrite{Rewrite: &waypoint.Rewrite{Path: prefix}}})(r)
		},
	} {
		t.Run(field, func(t *testing.T) {
			r := filtered()
			r.Name = "odd"
			spoil(r)
			rest := filtered()
			f, problems := route.Compile(frontend(waypoint.RouteKind_ROUTE_KIND_HTTP, httpRoute("r", r, rest)))
			d := f.Match(route.Client{}, 80, get("/"))
			if d.Outcome != route.Invalid && field != "matches[0].path.exact" {
				t.Fatalf("%v, %v", d.Outcome, d.Rule)
			}
			if len(problems) == 0 || problems[0].Field != field || !strings.HasPrefix(problems[0].String(), "HTTPRoute shop/r rule 0 (odd): "+field+": ") {
				t.Fatalf("problems %v", problems)
			}
		})
	}
}

// A condition that cannot be read is taken as met: what its rule could have been
// meant for does not pass by another rule, and what it was not meant for does.
func TestUnreadableConditions(t *testing.T) {
	odd := filtered()
	odd.Matches = []*waypoint.Match{onPrefix(&waypoint.Match{Headers: []*waypoint.ValueMatch{{Name: "x", Type: &waypoint.ValueMatch_Regex{Regex: "("}}}}, "/pay")}
	rest := filtered()
	f, _ := route.Compile(frontend(waypoint.RouteKind_ROUTE_KIND_HTTP, httpRoute("r", odd, rest)))
	if d := f.Match(route.Client{}, 80, get("/pay/1")); d.Outcome != route.Invalid || d.Rule.Index != 0 {
		t.Errorf("%+v", d)
	}
	if d := f.Match(route.Client{}, 80, get("/cart")); d.Outcome != route.Matched || d.Rule.Index != 1 {
		t.Errorf("%+v", d)
	}
}

func TestPorts(t *testing.T) {
	f, problems := route.Compile(oddities())
	var all []string
	for _, p := range problems {
		all = append(all, p.String())
	}
	text := strings.Join(all, "\n")
	for _, want := range []string{
		"service shop/cart: ports[1].kind: 77 is no kind", "service shop/cart: ports[2].number: 81 is there twice", "service shop/cart: ports[3].number: 70000 is not a port",
		"HTTPRoute shop/odd rule 4: backends[0].backend.service: is missing",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no problem %q in\n%s", want, text)
		}
	}
	if d := f.Match(route.Client{}, 81, get("/")); d.Outcome != route.Invalid || d.Reason == "" {
		t.Errorf("%+v", d)
	}
	if d := f.Match(route.Client{}, 82, get("/")); d.Outcome != route.NoPort || d.Reason != "service shop/cart has no such port; it has [80 81]" {
		t.Errorf("%+v", d)
	}
	if p, ok := f.Port(80); !ok || p.Kind != waypoint.RouteKind_ROUTE_KIND_HTTP {
		t.Errorf("%+v", p)
	}
}

// Consumer routes replace the producer's, for their namespace only.
func TestTables(t *testing.T) {
	f, problems := route.Compile(everything())
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, c := range []struct {
		namespace string
		port      uint16
		path      string
		want      route.Source
		outcome   route.Outcome
		rule      string
	}{
		{"a", 80, "/a", route.FromConsumer, route.Matched, "HTTPRoute/shop/mine/0"},
		{"b", 80, "/a", route.FromProducer, route.Matched, "HTTPRoute/shop/cart/all"},
		{"", 80, "/old", route.FromProducer, route.Matched, "HTTPRoute/shop/cart/1"},
		{"b", 80, "/other", route.FromProducer, route.NoRoute, ""},
		{"b", 9090, "/other", route.FromFallback, route.Matched, "fallback"},
		{"b", 443, "/other", route.FromProducer, route.Invalid, ""},
	} {
		d := f.Match(client(c.namespace), c.port, get(c.path))
		id := ""
		if d.Rule != nil {
			id = d.Rule.ID()
		}
		if d.Source != c.want || d.Outcome != c.outcome || id != c.rule {
			t.Errorf("%+v: %v %v %s (%s)", c, d.Source, d.Outcome, id, d.Reason)
		}
	}
}

// What the proxy needs of a rule has arrived.
func TestRuleIsComplete(t *testing.T) {
	f, _ := route.Compile(everything())
	r := f.Match(route.Client{}, 80, get("/a/b")).Rule
	if len(r.Filters) != 5 || len(r.Backends) != 3 || r.Timeouts.Request.Or(time.Hour) != time.Second || r.Timeouts.Idle.Or(time.Hour) != time.Hour {
		t.Errorf("%+v", r)
	}
	if !r.Retry.OnStatus(503) || r.Retry.OnStatus(500) || !r.Retry.OnCode(route.Unavailable) || r.Retry.OnCode(route.Internal) || !r.Retry.Reset || r.Retry.Attempts != 2 {
		t.Errorf("%+v", r.Retry)
	}
	if r.Tracing.Sampling != 10_000 || r.Session == nil || len(r.Faults) != 1 || len(r.RateLimits) != 1 {
		t.Errorf("%+v", r)
	}
	var none *route.Retry
	if none.OnStatus(503) || none.OnCode(route.Unavailable) {
		t.Error("a rule without retries retries")
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	for _, l := range layouts {
		f, req := frontendOf(t, l, 100), l.request(99)
		if n := testing.AllocsPerRun(100, func() { f.Match(client("x"), 80, req) }); n != 0 {
			t.Errorf("%s: %v allocations", l.name, n)
		}
	}
}

// Headers that codecs keep elsewhere can be matched all the same, among few and
// among many names.
func TestDerivedHeaders(t *testing.T) {
	for _, others := range []int{0, 20} {
		var rules []*waypoint.Rule
		for name, value := range map[string]string{"Host": "a.example", "Upgrade": "websocket", "Content-Length": "17"} {
			r := filtered()
			r.Name, r.Matches = name, []*waypoint.Match{{Headers: []*waypoint.ValueMatch{equal(name, value)}}}
			rules = append(rules, r)
		}
		for i := range others {
			r := filtered()
			r.Matches = []*waypoint.Match{layouts[5].match(i)}
			rules = append(rules, r)
		}
		f, _ := route.Compile(frontend(waypoint.RouteKind_ROUTE_KIND_HTTP, httpRoute("r", rules...)))
		host, upgrade, length := get("/"), get("/"), get("/")
		host.Authority, upgrade.Protocol, length.ContentLength = "a.example", "websocket", 17
		for name, req := range map[string]*message.Request{"Host": host, "Upgrade": upgrade, "Content-Length": length} {
			if d := f.Match(route.Client{}, 80, req); d.Outcome != route.Matched || d.Rule.Name != name {
				t.Errorf("%s among %d others: %v %v", name, others, d.Outcome, d.Rule)
			}
		}
		if d := f.Match(route.Client{}, 80, get("/")); d.Outcome != route.NoRoute {
			t.Errorf("%v %v", d.Outcome, d.Rule)
		}
	}
}
