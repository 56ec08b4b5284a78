package route_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// Whatever a control plane sends, it is compiled, matched, explained and carried
// out without a panic, and what cannot be read lets nothing through.
func FuzzCompile(f *testing.F) {
	for _, pb := range []*waypoint.Frontend{{}, everything(), oddities()} {
		b, err := proto.Marshal(pb)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, "/a/b?p=1", "x")
	}
	f.Fuzz(func(t *testing.T, b []byte, target, value string) {
		pb := &waypoint.Frontend{}
		if proto.Unmarshal(b, pb) != nil {
			return
		}
		path, err := route.NormalizePath(target)
		if err != nil {
			return
		}
		compiled, problems := route.Compile(pb)
		for _, p := range problems {
			if p.Object == "" || p.Message == "" {
				t.Fatalf("a problem that names nothing: %+v", p)
			}
		}
		req := &message.Request{Method: "GET", Scheme: "http", Authority: value, Path: path, Fields: fields("x", value, "origin", value, "cookie", value)}
		for _, number := range append(compiled.PortNumbers(), 1) {
			for _, namespace := range []string{"", "a", value} {
				c := client(namespace)
				d := compiled.Match(c, number, req)
				carryOut(t, d, c, number, req)
				agree(t, d, compiled.Explain(c, number, req))
				d = compiled.MatchConnection(c, number, value)
				carryOut(t, d, c, number, req)
				agree(t, d, compiled.ExplainConnection(c, number, value))
			}
		}
	})
}

func agree(t failer, d route.Decision, x route.Explanation) {
	if x.Outcome != d.Outcome.String() || x.Reason != d.Reason || (x.Rule == nil) != (d.Rule == nil) || x.String() == "" {
		t.Fatalf("%+v is explained as %+v", d, x)
	}
	if _, err := json.Marshal(x); err != nil {
		t.Fatal(err)
	}
}

func carryOut(t failer, d route.Decision, c route.Client, port uint16, req *message.Request) {
	if d.Outcome == 0 || (d.Outcome == route.Matched) != (d.Reason == "") || d.Outcome == route.Matched && (d.Rule == nil || d.Rule.Invalid != "") {
		t.Fatalf("%+v", d)
	}
	if d.Rule == nil {
		return
	}
	if d.Outcome == route.Matched {
		apply(t, d.Rule.Filters, d.Prefix, port, req)
	}
	a := d.Rule.Assign(req, 1<<63, noon)
	if d.Outcome != route.Matched && a.Backend != nil {
		t.Fatalf("%s has a backend", d.Reason)
	}
	if a.Backend == nil || a.Backend.Invalid != "" {
		if a.Reason == "" {
			t.Fatalf("no backend, and no reason: %+v", a)
		}
		return
	}
	apply(t, a.Backend.Filters, d.Prefix, port, req)
	if a.Backend.Port == 0 || a.Backend.Service == "" || a.Backend.Weight == 0 || a.Backend.Weight > 1_000_000 {
		t.Fatalf("%+v is used", a.Backend)
	}
	d.Rule.Fault(c, req, a.Backend.Service, 7)
	for _, l := range route.SelectRateLimits(nil, d.Rule.RateLimits, c, req, a.Backend.Service) {
		if l.Invalid != "" || l.Key(c, req) == "" {
			t.Fatalf("%+v", l)
		}
	}
	if d.Rule.Session != nil {
		token, _ := a.NextToken(d.Rule.Session, 1, noon)
		var answer message.Fields
		d.Rule.Session.Write(token, noon, true, &answer)
		if len(answer) != 1 {
			t.Fatal(answer)
		}
	}
}

// apply carries filters out; one that is nothing has been let through.
func apply(t failer, filters []route.Filter, prefix string, port uint16, req *message.Request) {
	for _, f := range filters {
		copied := *req
		copied.Fields = req.Fields.Clone(4)
		switch {
		case f.RequestHeaders != nil:
			f.RequestHeaders.Apply(&copied.Fields)
		case f.ResponseHeaders != nil:
			f.ResponseHeaders.Apply(&copied.Fields)
		case f.Redirect != nil:
			if f.Redirect.Location(&copied, port, prefix) == "" || f.Redirect.Status/100 != 3 {
				t.Fatalf("%+v", f.Redirect)
			}
		case f.Rewrite != nil:
			f.Rewrite.Apply(&copied, prefix)
			if again, err := route.NormalizePath(copied.Path); err != nil || again != copied.Path {
				t.Fatalf("%q rewritten to %q, which is not normal: %v", req.Path, copied.Path, err)
			}
		case f.Mirror != nil:
			f.Mirror.Hit(9)
		case f.CORS != nil:
			f.CORS.Apply(&copied, &copied.Fields)
		case f.ExternalAuthorization != nil:
			if f.ExternalAuthorization.Backend.Invalid != "" {
				t.Fatal("nobody can be asked, and yet the rule is carried out")
			}
		default:
			t.Fatal("a filter that does nothing")
		}
	}
}

// everything is a frontend that has one of all there is.
func everything() *waypoint.Frontend {
	ref := &waypoint.BackendRef{Service: "shop/v2", Port: 80}
	rule := &waypoint.Rule{
		Name: "all", Matches: []*waypoint.Match{
			{
				Path: &waypoint.PathMatch{Type: &waypoint.PathMatch_Prefix{Prefix: "/a"}}, Method: "GET",
				Headers:     []*waypoint.ValueMatch{equal("x", "x"), {Name: "y", Type: &waypoint.ValueMatch_Regex{Regex: "a|b"}}},
				QueryParams: []*waypoint.ValueMatch{equal("p", "1")},
			},
			onPrefix(&waypoint.Match{}, "/a"),
		},
		Filters: []*waypoint.Filter{
			{Type: &waypoint.Filter_RequestHeaders{RequestHeaders: &waypoint.HeaderModifier{Set: []*waypoint.Header{{Name: "x-via", Value: "ambit"}}, Remove: []string{"x-debug"}}}},
			{Type: &waypoint.Filter_Rewrite{Rewrite: &waypoint.Rewrite{Hostname: "v2", Path: &waypoint.PathModifier{Type: &waypoint.PathModifier_Prefix{Prefix: "/b"}}}}},
			{Type: &waypoint.Filter_Mirror{Mirror: &waypoint.Mirror{Backend: ref, Numerator: 1, Denominator: 10}}},
			{Type: &waypoint.Filter_Cors{Cors: &waypoint.CORS{AllowOrigins: []string{"https://*.example"}, AllowMethods: []string{"*"}}}},
			{Type: &waypoint.Filter_ExternalAuthorization{ExternalAuthorization: &waypoint.ExternalAuthorization{Backend: ref, Protocol: &waypoint.ExternalAuthorization_Grpc{Grpc: &waypoint.ExternalGRPC{}}}}},
		},
		Backends: []*waypoint.WeightedBackend{
			{Weight: 9, Backend: &waypoint.BackendRef{Service: "shop/v1", Port: 80}},
			{Weight: 1, Backend: ref, Filters: []*waypoint.Filter{{Type: &waypoint.Filter_ResponseHeaders{ResponseHeaders: &waypoint.HeaderModifier{Add: []*waypoint.Header{{Name: "x-canary", Value: "1"}}}}}}},
			{Weight: 0, Backend: &waypoint.BackendRef{Invalid: "Service shop/v3 does not exist; create it, or remove it from backendRefs"}},
		},
		Timeouts:           &waypoint.Timeouts{Request: durationpb.New(time.Second)},
		Retry:              &waypoint.Retry{On: []waypoint.Retry_On{1, 2, 3, 4}, Codes: []uint32{503}, GrpcCodes: []string{"UNAVAILABLE"}, Attempts: 2},
		SessionPersistence: cookieSession(),
		Faults:             []*waypoint.Fault{{Policy: "shop/chaos", Rule: "slow", Delay: &waypoint.Delay{Duration: durationpb.New(time.Second), Share: 10_000}, Abort: &waypoint.Abort{Share: 500, HttpStatus: 503}}},
		RateLimits:         []*waypoint.RateLimit{{Policy: "shop/limits", Rule: "each", Requests: 10, Unit: durationpb.New(time.Second), Key: []*waypoint.RateLimitKey{{Type: waypoint.RateLimitKey_TYPE_IDENTITY}}}},
		Tracing:            &waypoint.Tracing{Sampling: 10_000},
	}
	redirect := &waypoint.Rule{Matches: []*waypoint.Match{onPath(&waypoint.Match{}, "/old")}, Filters: []*waypoint.Filter{{Type: &waypoint.Filter_Redirect{Redirect: &waypoint.Redirect{Scheme: "https", Status: 301}}}}}
	f := frontend(waypoint.RouteKind_ROUTE_KIND_HTTP, httpRoute("cart", rule, redirect))
	f.Ports[0].Consumers = []*waypoint.ConsumerTable{{Namespace: "a", Table: &waypoint.RouteTable{Routes: []*waypoint.Route{httpRoute("mine", filtered())}}}}
	f.Ports = append(f.Ports,
		&waypoint.Port{Number: 443, Kind: waypoint.RouteKind_ROUTE_KIND_TLS, Producer: &waypoint.RouteTable{Routes: []*waypoint.Route{
			{Kind: "TLSRoute", Namespace: "shop", Name: "tls", ServerNames: []string{"a.example", "*.example"}, Rules: []*waypoint.Rule{split(backend("shop/v1", 1))}},
		}}},
		&waypoint.Port{Number: 9090, Fallback: split(backend("shop/cart", 1))})
	return f
}

// oddities is a frontend of things that cannot be read.
func oddities() *waypoint.Frontend {
	bad := func(m *waypoint.Match) *waypoint.Rule {
		r := filtered()
		r.Matches = []*waypoint.Match{m}
		return r
	}
	f := frontend(waypoint.RouteKind_ROUTE_KIND_HTTP, httpRoute("odd",
		bad(&waypoint.Match{Path: &waypoint.PathMatch{Type: &waypoint.PathMatch_Regex{Regex: "("}}}),
		bad(&waypoint.Match{Path: &waypoint.PathMatch{}}),
		bad(&waypoint.Match{Headers: []*waypoint.ValueMatch{{Name: "x"}}}),
		filtered(&waypoint.Filter{}),
		split(backend("", 1), backend("shop/a", 1<<31)),
	))
	f.Ports = append(f.Ports, &waypoint.Port{Number: 81, Kind: 77}, &waypoint.Port{Number: 81}, &waypoint.Port{Number: 70_000})
	return f
}

// failer is what tests of several kinds have in common.
type failer interface {
	Fatal(...any)
	Fatalf(string, ...any)
}

// Expressions match whole values, whatever is made of them to match faster.
func FuzzRegex(f *testing.F) {
	for _, p := range []string{"a|b", "^/a", "/a$", "a{0}", "(?i)A", `\Qa`, "a)|(b", "/a/b.*", `a\b`, "(?m)^a$", "", "(?s).", "[^/]+"} {
		f.Add(p, "/a")
		f.Add(p, "a")
	}
	f.Fuzz(func(t *testing.T, pattern, value string) {
		path, err := route.NormalizePath("/" + value)
		if err != nil || path != "/"+value {
			path = "/a"
		}
		rules := []*waypoint.Rule{filtered(), filtered()}
		rules[0].Matches = []*waypoint.Match{{Path: &waypoint.PathMatch{Type: &waypoint.PathMatch_Regex{Regex: pattern}}}}
		rules[1].Matches = []*waypoint.Match{onPrefix(&waypoint.Match{Headers: []*waypoint.ValueMatch{{Name: "x", Type: &waypoint.ValueMatch_Regex{Regex: pattern}}}}, "/")}
		for i, subject := range []string{strings.SplitN(path, "?", 2)[0], value} {
			pb := frontend(waypoint.RouteKind_ROUTE_KIND_HTTP, httpRoute("r", rules[i]))
			compiled, problems := route.Compile(pb)
			d := compiled.Match(route.Client{}, 80, get(path, fields("x", value)...))
			switch {
			case len(problems) > 0:
				// Refused; \Q without an end is, too.
				if d.Outcome != route.Invalid {
					t.Fatalf("%q: %v", pattern, d.Outcome)
				}
			case (d.Outcome == route.Matched) != slowRegex(pattern, subject):
				t.Fatalf("%q of %q: %v", pattern, subject, d.Outcome)
			}
		}
	})
}
