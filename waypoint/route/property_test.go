package route_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// The alphabets are small, so that rules and requests meet.
var (
	namespacesGen = rapid.SampledFrom([]string{"a", "b", "c", ""})
	pathsGen      = rapid.SampledFrom([]string{"/", "/a", "/a/", "/a/b", "/ab", "/a//b", "/%61/b/c", "/b", "/a/b/c", "/svc/get", "/svc.x/get", "/svc/list", "//"})
	regexesGen    = rapid.SampledFrom([]string{"/a.*", "/(a|ab)", "/a|/b", "/a/b", "a", ".*", "(", "/[a-z]+", "(?i)/A", "1|2", "svc", "svc.?.?", "get|list", ""})
	valuesGen     = rapid.SampledFrom([]string{"1", "2", "1,2", "", "h"})
	headersGen    = rapid.SampledFrom([]string{"x", "y", "X", "host", "z"})
	paramsGen     = rapid.SampledFrom([]string{"p", "q", "P", "p q"})
	methodsGen    = rapid.SampledFrom([]string{"GET", "POST", "HEAD"})
)

// rarely is true once in n.
func rarely(t *rapid.T, n int, label string) bool { return rapid.IntRange(1, n).Draw(t, label) == n }

func genPath(t *rapid.T) *waypoint.PathMatch {
	p := pathsGen.Draw(t, "path")
	if rarely(t, 25, "unreadable") {
		p = rapid.SampledFrom([]string{"a", "", "/%2f"}).Draw(t, "bad path")
	}
	switch rapid.IntRange(0, 30).Draw(t, "path type") {
	case 0:
		return &waypoint.PathMatch{}
	case 1, 2, 3, 4, 5, 6:
		return &waypoint.PathMatch{Type: &waypoint.PathMatch_Regex{Regex: regexesGen.Draw(t, "regex")}}
	case 7, 8, 9, 10, 11, 12, 13, 14, 15, 16:
		return &waypoint.PathMatch{Type: &waypoint.PathMatch_Exact{Exact: p}}
	case 17, 18, 19, 20:
		return nil
	}
	return &waypoint.PathMatch{Type: &waypoint.PathMatch_Prefix{Prefix: p}}
}

func genValues(names *rapid.Generator[string], t *rapid.T) []*waypoint.ValueMatch {
	var out []*waypoint.ValueMatch
	for range rapid.SampledFrom([]int{0, 0, 0, 1, 1, 2, 3}).Draw(t, "values") {
		m := &waypoint.ValueMatch{Name: names.Draw(t, "name")}
		switch rapid.IntRange(0, 30).Draw(t, "value type") {
		case 0:
		case 1, 2, 3, 4, 5, 6:
			m.Type = &waypoint.ValueMatch_Regex{Regex: regexesGen.Draw(t, "regex")}
		default:
			m.Type = &waypoint.ValueMatch_Exact{Exact: valuesGen.Draw(t, "value")}
		}
		out = append(out, m)
	}
	return out
}

func genMatch(kind waypoint.RouteKind) func(t *rapid.T) *waypoint.Match {
	return func(t *rapid.T) *waypoint.Match {
		m := &waypoint.Match{Headers: genValues(headersGen, t)}
		if kind == waypoint.RouteKind_ROUTE_KIND_GRPC {
			if rapid.Bool().Draw(t, "grpc") {
				m.Grpc = &waypoint.GRPCMethodMatch{
					Service: rapid.SampledFrom([]string{"", "svc", "svc.x", "a"}).Draw(t, "service"),
					Method:  rapid.SampledFrom([]string{"", "get", "list", "b"}).Draw(t, "method"),
					Regex:   rapid.Bool().Draw(t, "is regex"),
				}
				if m.Grpc.Regex && rapid.Bool().Draw(t, "special") {
					m.Grpc.Service, m.Grpc.Method = regexesGen.Draw(t, "service regex"), regexesGen.Draw(t, "method regex")
				}
			}
			return m
		}
		m.Path, m.QueryParams = genPath(t), genValues(paramsGen, t)
		if rarely(t, 4, "has method") {
			m.Method = methodsGen.Draw(t, "method")
		}
		return m
	}
}

func genRule(kind waypoint.RouteKind, route, index int) func(t *rapid.T) *waypoint.Rule {
	return func(t *rapid.T) *waypoint.Rule {
		r := &waypoint.Rule{
			Index:    uint32(index),
			Name:     fmt.Sprintf("%d-%d", route, index),
			Matches:  rapid.SliceOfN(rapid.Custom(genMatch(kind)), 0, 3).Draw(t, "matches"),
			Backends: []*waypoint.WeightedBackend{backend("a/x", uint32(rapid.IntRange(0, 3).Draw(t, "weight")))},
		}
		switch rapid.IntRange(0, 40).Draw(t, "trouble") {
		case 0:
			r.Invalid = "it is broken"
		case 1:
			r.Filters = []*waypoint.Filter{{}}
		case 2:
			r.Backends[0].Weight = 2_000_000
		}
		return r
	}
}

func genTable(kind waypoint.RouteKind) func(t *rapid.T) *waypoint.RouteTable {
	return func(t *rapid.T) *waypoint.RouteTable {
		out := &waypoint.RouteTable{}
		for i := range rapid.IntRange(0, 4).Draw(t, "routes") {
			r := &waypoint.Route{
				Kind: "HTTPRoute", Namespace: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "namespace"),
				// Now and then two routes have one name, which should not be.
				Name: fmt.Sprintf("r%d", rapid.IntRange(max(0, i-1), 4).Draw(t, "name")),
			}
			if kind == waypoint.RouteKind_ROUTE_KIND_GRPC {
				r.Kind = "GRPCRoute"
			}
			if s := rapid.IntRange(0, 2).Draw(t, "created"); s > 0 {
				r.Created = &timestamppb.Timestamp{Seconds: int64(s)}
			}
			for k := range rapid.IntRange(0, 5).Draw(t, "rules") {
				r.Rules = append(r.Rules, rapid.Custom(genRule(kind, i, k)).Draw(t, "rule"))
			}
			out.Routes = append(out.Routes, r)
		}
		if kind == waypoint.RouteKind_ROUTE_KIND_HTTP && len(out.Routes) > 0 && rarely(t, 4, "crowded") {
			crowd(out, len(out.Routes)-1)
		}
		return out
	}
}

// crowd adds so many expressions and so many names of headers and parameters that
// they are indexed another way.
func crowd(table *waypoint.RouteTable, route int) {
	r := table.Routes[route]
	for i := range 40 {
		rule := &waypoint.Rule{Index: uint32(len(r.Rules)), Name: fmt.Sprintf("%d-%d", route, len(r.Rules))}
		re := []string{"/a/b.+", "/a/.", "/ab?", "/b[c]", "/svc(/get)?", "(/a|/b)/x"}[i%6] + []string{"", "x?", "(/c)?"}[i%3]
		m := &waypoint.Match{Path: &waypoint.PathMatch{Type: &waypoint.PathMatch_Regex{Regex: re}}}
		switch i % 4 {
		case 1:
			m.Headers = []*waypoint.ValueMatch{equal("x", "1")}
		case 2:
			m.Headers = []*waypoint.ValueMatch{equal(fmt.Sprintf("h%d", i), "1")}
		case 3:
			m.QueryParams = []*waypoint.ValueMatch{equal([]string{"p", "q", "p q"}[i/4%3], "1")}
		}
		rule.Matches = []*waypoint.Match{m}
		r.Rules = append(r.Rules, rule)
	}
}

func genFrontend(t *rapid.T) *waypoint.Frontend {
	kind := rapid.SampledFrom([]waypoint.RouteKind{waypoint.RouteKind_ROUTE_KIND_HTTP, waypoint.RouteKind_ROUTE_KIND_HTTP, waypoint.RouteKind_ROUTE_KIND_GRPC}).Draw(t, "kind")
	p := &waypoint.Port{Number: 80, Kind: kind}
	if !rarely(t, 8, "no producer") {
		p.Producer = rapid.Custom(genTable(kind)).Draw(t, "producer")
	}
	if rarely(t, 3, "consumers") {
		p.Consumers = []*waypoint.ConsumerTable{{Namespace: "b", Table: rapid.Custom(genTable(kind)).Draw(t, "consumer")}}
	}
	if !rarely(t, 8, "no fallback") {
		p.Fallback = &waypoint.Rule{Backends: []*waypoint.WeightedBackend{backend("a/x", 1)}}
	}
	return &waypoint.Frontend{Namespace: "a", Name: "x", Ports: []*waypoint.Port{p}}
}

func genRequest(t *rapid.T) *message.Request {
	req := &message.Request{
		Method: methodsGen.Draw(t, "method"), Scheme: "http", Authority: rapid.SampledFrom([]string{"h", "1"}).Draw(t, "authority"),
	}
	target := pathsGen.Draw(t, "path")
	if rapid.Bool().Draw(t, "query") {
		target += "?" + rapid.SampledFrom([]string{"p=1", "p=2&p=1", "q=1&p=1", "p=&q=2", "p%20q=1", "P=1&p=%31", "p+q=2&q", "%zz=1&p=2", "p=1&q=2&P=1"}).Draw(t, "params")
	}
	// Now and then so many that they are looked up another way.
	if rarely(t, 6, "many parameters") {
		target += "&" + strings.Repeat("r=1&", 70)
		if !strings.Contains(target, "?") {
			target = strings.Replace(target, "&", "?", 1)
		}
		target += rapid.SampledFrom([]string{"p=1", "q=1&p=2", "p%20q=1&P=1", "p=%3&p=1&=2"}).Draw(t, "more params")
	}
	var err error
	if req.Path, err = route.NormalizePath(target); err != nil {
		t.Fatal(err)
	}
	for range rapid.IntRange(0, 4).Draw(t, "fields") {
		req.Fields.Add(rapid.SampledFrom([]string{"x", "y", "z", "w"}).Draw(t, "field"), valuesGen.Draw(t, "value"))
	}
	for i := range rapid.SampledFrom([]int{0, 0, 0, 0, 80}).Draw(t, "many fields") {
		req.Fields.Add([]string{"f", "x", "h2"}[min(i, 2)], "1")
	}
	return req
}

func client(namespace string) route.Client {
	if namespace == "" {
		return route.Client{}
	}
	return route.Client{Identity: identity.ID{TrustDomain: "td", Namespace: namespace, ServiceAccount: "sa"}}
}

// verdictOf gives what was decided as the reference does; the name of a rule is
// its place in the table.
func verdictOf(t *rapid.T, d route.Decision, x route.Explanation) slowVerdict {
	v := slowVerdict{outcome: d.Outcome, source: d.Source, prefix: d.Prefix}
	if d.Rule == nil || d.Source == route.FromFallback {
		return v
	}
	if x.Rule == nil || x.Rule.Route != d.Rule.Route || x.Rule.Name != d.Rule.Name || x.Rule.Prefix != d.Prefix {
		t.Fatalf("Explain names %+v, Match %v", x.Rule, d.Rule)
	}
	v.route, v.rule = place(d.Rule.Name)
	v.match = x.Rule.Match
	return v
}

func place(name string) (route, rule int) {
	if n, err := fmt.Sscanf(name, "%d-%d", &route, &rule); n != 2 {
		panic(err)
	}
	return route, rule
}

// The matcher and the slow reference agree on every table and every request: on
// the outcome, on the rule and the match that made it, and on the prefix. Explain
// agrees with both, and what it says of the others is true.
func TestMatchAgreesWithReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pb := genFrontend(t)
		f, _ := route.Compile(pb)
		for range 8 {
			req, namespace := genRequest(t), namespacesGen.Draw(t, "client")
			want := slow(pb, namespace, 80, req)
			d, x := f.Match(client(namespace), 80, req), f.Explain(client(namespace), 80, req)
			got := verdictOf(t, d, x)
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(slowVerdict{})); diff != "" {
				t.Fatalf("%s\n%s %s %v %v from %q (-reference +matcher):\n%s\n%s", prototext.Format(pb), req.Method, req.Path, req.Authority, req.Fields, namespace, diff, x)
			}
			if (d.Outcome == route.Matched) != (d.Reason == "") {
				t.Fatalf("%v with reason %q", d.Outcome, d.Reason)
			}
			checkOthers(t, pb, d, x, req)
		}
	})
}

// checkOthers holds every reason why a match was not chosen against the
// reference.
func checkOthers(t *rapid.T, pb *waypoint.Frontend, d route.Decision, x route.Explanation, req *message.Request) {
	for _, o := range x.Others {
		if o.Match < 0 {
			continue
		}
		table := pb.Ports[0].Producer
		if d.Source == route.FromConsumer {
			table = pb.Ports[0].Consumers[0].Table
		}
		ri, pi := place(o.Name)
		if slowHolds(table.Routes[ri].Rules[pi].Matches[o.Match], req) != (o.Differs == "") {
			t.Fatalf("%s %s: %+v", req.Method, req.Path, o)
		}
	}
}
