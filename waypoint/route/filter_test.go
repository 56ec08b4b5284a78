package route_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// fields makes field lines of names and values in turn.
func fields(pairs ...string) message.Fields {
	var out message.Fields
	for i := 0; i < len(pairs); i += 2 {
		out.Add(pairs[i], pairs[i+1])
	}
	return out
}

// compileRule compiles a rule alone, as that of an HTTPRoute.
func compileRule(t testing.TB, r *waypoint.Rule) (*route.Rule, []route.Problem) {
	t.Helper()
	f, problems := route.Compile(frontend(waypoint.RouteKind_ROUTE_KIND_HTTP, httpRoute("r", r)))
	req := get("/")
	for _, m := range r.Matches {
		if p := m.GetPath().GetPrefix() + m.GetPath().GetExact(); p != "" {
			req.Path = p
		}
	}
	d := f.Match(route.Client{}, 80, req)
	if d.Rule == nil {
		t.Fatalf("no rule: %s", d.Reason)
	}
	return d.Rule, problems
}

func frontend(kind waypoint.RouteKind, routes ...*waypoint.Route) *waypoint.Frontend {
	return &waypoint.Frontend{Namespace: "shop", Name: "cart", Ports: []*waypoint.Port{{
		Number: 80, Kind: kind, Producer: &waypoint.RouteTable{Routes: routes},
	}}}
}

func httpRoute(name string, rules ...*waypoint.Rule) *waypoint.Route {
	for i, r := range rules {
		r.Index = uint32(i)
	}
	return &waypoint.Route{Kind: "HTTPRoute", Namespace: "shop", Name: name, Rules: rules}
}

func filtered(filters ...*waypoint.Filter) *waypoint.Rule {
	return &waypoint.Rule{Filters: filters, Backends: []*waypoint.WeightedBackend{backend("shop/a", 1)}}
}

// filterOf compiles one filter.
func filterOf(t *testing.T, f *waypoint.Filter) route.Filter {
	t.Helper()
	r, problems := compileRule(t, filtered(f))
	if len(problems) > 0 || r.Invalid != "" {
		t.Fatalf("%v %s", problems, r.Invalid)
	}
	return r.Filters[0]
}

func TestHeaderModifier(t *testing.T) {
	m := filterOf(t, &waypoint.Filter{Type: &waypoint.Filter_RequestHeaders{RequestHeaders: &waypoint.HeaderModifier{
		Set:    []*waypoint.Header{{Name: "X-Set", Value: " new "}, {Name: "x-fresh", Value: "1"}},
		Add:    []*waypoint.Header{{Name: "X-Add", Value: "b,c"}, {Name: "x-more", Value: "2"}, {Name: "set-cookie", Value: "b=2"}},
		Remove: []string{"X-Gone"},
	}}}).RequestHeaders
	got := fields("x-set", "old", "x-set", "older", "x-add", "a", "x-gone", "1", "set-cookie", "a=1", "x-gone", "2")
	m.Apply(&got)
	want := fields("x-set", "new", "x-add", "a,b,c", "set-cookie", "a=1", "x-fresh", "1", "x-more", "2", "set-cookie", "b=2")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestProtectedHeaders(t *testing.T) {
	for _, name := range []string{"Host", ":path", "Connection", "TE", "Content-Length", "transfer-encoding", "bad name", ""} {
		r, problems := compileRule(t, filtered(&waypoint.Filter{Type: &waypoint.Filter_ResponseHeaders{ResponseHeaders: &waypoint.HeaderModifier{Remove: []string{name}}}}))
		if r.Invalid == "" || len(problems) != 1 || problems[0].Field != "filters[0].response_headers.remove[0]" {
			t.Errorf("%q: invalid %q, problems %v", name, r.Invalid, problems)
		}
	}
}

// The table at HTTPPathModifier.ReplacePrefixMatch of the Gateway API, and what it
// leaves open.
func TestRewritePrefix(t *testing.T) {
	for _, c := range []struct{ path, prefix, replace, want string }{
		{"/foo/bar", "/foo", "/xyz", "/xyz/bar"},
		{"/foo/bar", "/foo", "/xyz/", "/xyz/bar"},
		{"/foo/bar", "/foo/", "/xyz", "/xyz/bar"},
		{"/foo/bar", "/foo/", "/xyz/", "/xyz/bar"},
		{"/foo", "/foo", "/xyz", "/xyz"},
		{"/foo/", "/foo", "/xyz", "/xyz/"},
		{"/foo/bar", "/foo", "", "/bar"},
		{"/foo/", "/foo", "", "/"},
		{"/foo", "/foo", "", "/"},
		{"/foo/", "/foo", "/", "/"},
		{"/foo", "/foo", "/", "/"},
		{"/foo?x=1&y", "/foo", "/", "/?x=1&y"},
		{"/foo?", "/foo", "/xyz", "/xyz?"},
		{"/bar", "/", "/xyz", "/xyz/bar"},
		{"/", "/", "/xyz", "/xyz/"},
		{"/foo/b%20c", "/foo", "/é", "/%C3%A9/b%20c"},
	} {
		r := filtered(&waypoint.Filter{Type: &waypoint.Filter_Rewrite{Rewrite: &waypoint.Rewrite{Path: &waypoint.PathModifier{Type: &waypoint.PathModifier_Prefix{Prefix: c.replace}}}}})
		r.Matches = []*waypoint.Match{onPrefix(&waypoint.Match{}, c.prefix)}
		f, problems := route.Compile(frontend(waypoint.RouteKind_ROUTE_KIND_HTTP, httpRoute("r", r)))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		req := get(c.path)
		d := f.Match(route.Client{}, 80, req)
		if d.Outcome != route.Matched {
			t.Fatalf("%+v: %s", c, d.Reason)
		}
		d.Rule.Filters[0].Rewrite.Apply(req, d.Prefix)
		if req.Path != c.want {
			t.Errorf("%s, prefix %s replaced by %q: %s, want %s", c.path, c.prefix, c.replace, req.Path, c.want)
		}
	}
}

func TestRewriteFull(t *testing.T) {
	w := filterOf(t, &waypoint.Filter{Type: &waypoint.Filter_Rewrite{Rewrite: &waypoint.Rewrite{
		Hostname: "other.example", Path: &waypoint.PathModifier{Type: &waypoint.PathModifier_Full{Full: "/one"}},
	}}}).Rewrite
	req := get("/a/b?c=d")
	w.Apply(req, "/")
	if req.Path != "/one?c=d" || req.Authority != "other.example" {
		t.Error(req.Authority, req.Path)
	}
	req = get("*")
	w.Apply(req, "/")
	if req.Path != "*" {
		t.Error(req.Path)
	}
}

func TestRedirect(t *testing.T) {
	full := &waypoint.PathModifier{Type: &waypoint.PathModifier_Full{Full: "/full"}}
	prefix := &waypoint.PathModifier{Type: &waypoint.PathModifier_Prefix{Prefix: "/new"}}
	for _, c := range []struct {
		name      string
		r         *waypoint.Redirect
		scheme    string
		authority string
		port      uint16
		status    int
		want      string
	}{
		{"host", &waypoint.Redirect{Hostname: "x.org"}, "http", "a:80", 80, 302, "http://x.org/old/p?q=1"},
		{"host, other port", &waypoint.Redirect{Hostname: "x.org", Status: 301}, "http", "a", 8080, 301, "http://x.org:8080/old/p?q=1"},
		{"scheme", &waypoint.Redirect{Scheme: "https", Status: 308}, "http", "a.b:8080", 8080, 308, "https://a.b/old/p?q=1"},
		{"scheme and port", &waypoint.Redirect{Scheme: "https", Port: 8443}, "http", "a", 80, 302, "https://a:8443/old/p?q=1"},
		{"https on port 80", &waypoint.Redirect{Scheme: "https", Port: 80}, "http", "a", 80, 302, "https://a:80/old/p?q=1"},
		{"well-known port", &waypoint.Redirect{Port: 443}, "https", "a", 8443, 302, "https://a/old/p?q=1"},
		{"the port is the frontend's", &waypoint.Redirect{Status: 303}, "http", "a:9999", 80, 303, "http://a/old/p?q=1"},
		{"full path", &waypoint.Redirect{Path: full, Status: 307}, "http", "a", 80, 307, "http://a/full?q=1"},
		{"prefix", &waypoint.Redirect{Path: prefix}, "http", "a", 80, 302, "http://a/new/p?q=1"},
		{"ipv6", &waypoint.Redirect{}, "http", "[fd00::1]:80", 81, 302, "http://[fd00::1]:81/old/p?q=1"},
		{"ipv6 without a port", &waypoint.Redirect{}, "http", "[fd00::1]", 80, 302, "http://[fd00::1]/old/p?q=1"},
		{"no host", &waypoint.Redirect{Path: full}, "http", "", 80, 302, "/full?q=1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &waypoint.Rule{Filters: []*waypoint.Filter{{Type: &waypoint.Filter_Redirect{Redirect: c.r}}}, Matches: []*waypoint.Match{onPrefix(&waypoint.Match{}, "/old")}}
			rule, problems := compileRule(t, r)
			if len(problems) > 0 || !rule.Answers() {
				t.Fatal(problems, rule.Answers())
			}
			req := get("/old/p?q=1")
			req.Scheme, req.Authority = c.scheme, c.authority
			got := rule.Filters[0].Redirect
			if loc := got.Location(req, c.port, "/old"); loc != c.want || got.Status != c.status {
				t.Errorf("%d %s, want %d %s", got.Status, loc, c.status, c.want)
			}
		})
	}
}

// A location without a host must not become one.
func TestRedirectStaysHere(t *testing.T) {
	r := filterOf(t, &waypoint.Filter{Type: &waypoint.Filter_Redirect{Redirect: &waypoint.Redirect{}}}).Redirect
	req := get("//evil.example/x")
	req.Authority = ""
	if got := r.Location(req, 80, "/"); got != "/evil.example/x" {
		t.Error(got)
	}
}

func corsOf(t *testing.T, c *waypoint.CORS) *route.CORS {
	t.Helper()
	return filterOf(t, &waypoint.Filter{Type: &waypoint.Filter_Cors{Cors: c}}).CORS
}

func TestCORSOrigins(t *testing.T) {
	c := corsOf(t, &waypoint.CORS{AllowOrigins: []string{"https://a.com", "http://b.com:8080", "https://*.c.com", "http://*:81", "https://d.com:443"}})
	for origin, want := range map[string]bool{
		"https://a.com": true, "https://A.com:443": true, "https://a.com:444": false, "http://a.com": false,
		"http://b.com:8080": true, "http://b.com": false,
		"https://x.c.com": true, "https://x.y.c.com": true, "https://c.com": false, "https://.c.com": false, "https://xc.com": false, "https://x.c.com.evil": false,
		"http://anything:81": true, "http://anything": false, "https://d.com": true,
		"null": false, "": false, "https://evil/x.c.com": false, "https://evil#.c.com": false,
	} {
		req := get("/", message.Field{Name: "origin", Value: origin})
		var got message.Fields
		c.Apply(req, &got)
		if got.Has("access-control-allow-origin") != want || got.Get("vary") != "Origin" {
			t.Errorf("%q: %v", origin, got)
		}
		if want && got.Get("access-control-allow-origin") != origin {
			t.Errorf("%q: %v", origin, got)
		}
	}
}

func TestCORSPreflight(t *testing.T) {
	preflight := func(origin string) *message.Request {
		r := get("/", message.Field{Name: "origin", Value: origin}, message.Field{Name: "access-control-request-method", Value: "PUT"}, message.Field{Name: "access-control-request-headers", Value: "x-a,x-b"})
		r.Method = "OPTIONS"
		return r
	}
	const vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
	for _, c := range []struct {
		name   string
		cors   *waypoint.CORS
		origin string
		want   message.Fields
	}{
		{
			"listed", &waypoint.CORS{AllowOrigins: []string{"https://a.com"}, AllowMethods: []string{"GET", "PUT"}, AllowHeaders: []string{"x-a"}, MaxAge: durationpb.New(time.Minute)}, "https://a.com",
			fields("vary", vary, "access-control-allow-origin", "https://a.com", "access-control-allow-methods", "GET, PUT", "access-control-allow-headers", "x-a", "access-control-max-age", "60"),
		},
		{"another origin", &waypoint.CORS{AllowOrigins: []string{"https://a.com"}, AllowMethods: []string{"*"}}, "https://b.com", fields("vary", vary)},
		{
			"any", &waypoint.CORS{AllowOrigins: []string{"*"}, AllowMethods: []string{"*"}, AllowHeaders: []string{"*"}}, "https://b.com",
			fields("vary", vary, "access-control-allow-origin", "*", "access-control-allow-methods", "*", "access-control-allow-headers", "*", "access-control-max-age", "5"),
		},
		{
			"any with credentials", &waypoint.CORS{AllowOrigins: []string{"*"}, AllowCredentials: true, AllowMethods: []string{"*"}, AllowHeaders: []string{"*"}}, "https://b.com",
			fields("vary", vary, "access-control-allow-origin", "https://b.com", "access-control-allow-credentials", "true",
				"access-control-allow-methods", "PUT", "access-control-allow-headers", "x-a,x-b", "access-control-max-age", "5"),
		},
		{"nobody", &waypoint.CORS{}, "https://b.com", fields("vary", vary)},
	} {
		got, ok := corsOf(t, c.cors).Preflight(preflight(c.origin))
		if diff := cmp.Diff(c.want, got); diff != "" || !ok {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
	if _, ok := corsOf(t, &waypoint.CORS{AllowOrigins: []string{"*"}}).Preflight(get("/", message.Field{Name: "origin", Value: "https://a.com"})); ok {
		t.Error("a plain request was taken for a preflight")
	}
}

// What a backend says about sharing is replaced.
func TestCORSResponse(t *testing.T) {
	c := corsOf(t, &waypoint.CORS{AllowOrigins: []string{"*"}, ExposeHeaders: []string{"x-a", "x-b"}})
	got := fields("access-control-allow-origin", "https://everybody", "access-control-max-age", "9", "x", "y")
	c.Apply(get("/", message.Field{Name: "origin", Value: "https://a.com"}), &got)
	if diff := cmp.Diff(fields("x", "y", "access-control-allow-origin", "*", "access-control-expose-headers", "x-a, x-b"), got); diff != "" {
		t.Error(diff)
	}
	c = corsOf(t, &waypoint.CORS{AllowOrigins: []string{"https://a.com"}, AllowCredentials: true, ExposeHeaders: []string{"*"}})
	got = fields("vary", "accept-encoding")
	c.Apply(get("/", message.Field{Name: "origin", Value: "https://a.com"}), &got)
	if diff := cmp.Diff(fields("vary", "accept-encoding, Origin", "access-control-allow-origin", "https://a.com", "access-control-allow-credentials", "true"), got); diff != "" {
		t.Error(diff)
	}
}

func TestGRPC(t *testing.T) {
	for text, want := range map[string]string{"plain": "plain", "a%b": "a%25b", "é\n": "%C3%A9%0A", "": ""} {
		if got := route.EncodeMessage(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
	for c := range route.Code(17) {
		if got, ok := route.ParseCode(strings.ToLower(c.String())); !ok || got != c {
			t.Errorf("%v: %v", c, got)
		}
	}
	for ct, want := range map[string]bool{"application/grpc": true, "application/grpc+proto": true, "Application/gRPC;x": true, "application/grpc-web": false, "text/plain": false} {
		if route.IsGRPC(get("/", message.Field{Name: "content-type", Value: ct})) != want {
			t.Error(ct)
		}
	}
	if route.NoRoute.Code() != route.Unimplemented || route.Invalid.Code() != route.Unavailable || route.Invalid.Status() != 500 || route.NoRoute.Status() != 404 {
		t.Error("outcomes are answered by other codes")
	}
}
