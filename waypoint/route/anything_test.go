package route_test

import (
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

var (
	anyText   = rapid.SampledFrom([]string{"", "a", "/a", "/a/", "/", "x", "*", "(", "a|b", "HTTPRoute", "TLSRoute", "shop/a", "GET", "host", "a.x", "*.x", "https://*.x", "UNAVAILABLE", "a b", "\x00", "é", "/%2f", "/..", "a\nb"})
	anyNumber = rapid.SampledFrom([]uint64{0, 1, 2, 3, 4, 80, 301, 404, 503, 65_536, 1_000_000, 1_000_001, 1<<32 - 1})
)

// fill gives a message random fields, whatever they mean: unset, sensible, odd.
func fill(t *rapid.T, m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		odds := 2
		if fd.ContainingOneof() != nil {
			odds = 1 + fd.ContainingOneof().Fields().Len()
		}
		switch {
		case depth > 6 || rapid.IntRange(1, odds).Draw(t, string(fd.Name())) != odds:
		case fd.IsList():
			list := m.Mutable(fd).List()
			for range rapid.IntRange(0, 2).Draw(t, "length") {
				if fd.Message() == nil {
					list.Append(value(t, fd))
				} else {
					fill(t, list.AppendMutable().Message(), depth+1)
				}
			}
		case fd.Message() != nil:
			fill(t, m.Mutable(fd).Message(), depth+1)
		default:
			m.Set(fd, value(t, fd))
		}
	}
}

func value(t *rapid.T, fd protoreflect.FieldDescriptor) protoreflect.Value {
	n := anyNumber.Draw(t, "number")
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(anyText.Draw(t, "text"))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(anyText.Draw(t, "bytes")))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(n%2 == 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(n % 8))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(n))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(n) - 2)
	}
	return protoreflect.ValueOfUint32(uint32(n))
}

// disturb changes about one in odds of the fields of a message.
func disturb(t *rapid.T, m protoreflect.Message, odds int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		hit := rapid.IntRange(1, odds).Draw(t, string(fd.Name())) == odds
		switch {
		case hit && m.Has(fd) && rapid.Bool().Draw(t, "clear"):
			m.Clear(fd)
		case hit && fd.Message() == nil && !fd.IsList():
			m.Set(fd, value(t, fd))
		case hit && !fd.IsList() && !m.Has(fd) && fd.ContainingOneof() == nil:
			fill(t, m.Mutable(fd).Message(), 5)
		case m.Has(fd) && fd.IsList() && fd.Message() != nil:
			for k := range m.Get(fd).List().Len() {
				disturb(t, m.Get(fd).List().Get(k).Message(), odds)
			}
		case m.Has(fd) && !fd.IsList() && fd.Message() != nil:
			disturb(t, m.Get(fd).Message(), odds)
		}
	}
}

// Whatever is in a configuration, sensible or not, it is compiled, matched,
// explained and carried out, and what is let through is whole: every filter of the
// rule is there, and nothing that had a problem is used.
func TestAnything(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := &waypoint.Port{Number: 80, Kind: waypoint.RouteKind(rapid.IntRange(0, 5).Draw(rt, "kind"))}
		if rapid.Bool().Draw(rt, "fallback") {
			p.Fallback = &waypoint.Rule{}
			fill(rt, p.Fallback.ProtoReflect(), 3)
		}
		table := &waypoint.RouteTable{}
		for range rapid.IntRange(0, 3).Draw(rt, "routes") {
			r := &waypoint.Route{}
			fill(rt, r.ProtoReflect(), 2)
			if rapid.IntRange(0, 5).Draw(rt, "right kind") > 0 {
				r.Kind = map[waypoint.RouteKind]string{1: "HTTPRoute", 2: "GRPCRoute", 3: "TLSRoute", 4: "TCPRoute"}[p.Kind]
			}
			table.Routes = append(table.Routes, r)
		}
		if rapid.IntRange(0, 5).Draw(rt, "producer") > 0 {
			p.Producer = table
		}
		pb := &waypoint.Frontend{Namespace: "shop", Name: "cart", Ports: []*waypoint.Port{p}}
		f, problems := route.Compile(pb)
		survive(rt, f, pb, problems)
	})
}

// A configuration that is sensible but for a few fields is carried out as it was
// written, or refused.
func TestDisturbed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pb := everything()
		pb.Ports = pb.Ports[:1]
		odds := rapid.SampledFrom([]int{40, 100, 300}).Draw(t, "odds")
		for _, r := range pb.Ports[0].Producer.Routes {
			for _, rule := range r.Rules {
				disturb(t, rule.ProtoReflect(), odds)
			}
		}
		f, problems := route.Compile(pb)
		survive(t, f, pb, problems)
	})
}

// survive asks a frontend for everything that it can be asked for.
func survive(t *rapid.T, f *route.Frontend, pb *waypoint.Frontend, problems []route.Problem) {
	req := &message.Request{
		Method: rapid.SampledFrom([]string{"GET", "OPTIONS"}).Draw(t, "method"), Scheme: "http", Authority: "a",
		Path:   rapid.SampledFrom([]string{"/", "/a", "/a/x?a=b", "*", "", "/a?p=1", "/old"}).Draw(t, "path"),
		Fields: fields("x", "x", "y", "b", "origin", "https://a.example", "cookie", "a=b"),
	}
	for _, namespace := range []string{"a", "b"} {
		d := f.Match(client(namespace), 80, req)
		carryOut(t, d, client(namespace), 80, req)
		agree(t, d, f.Explain(client(namespace), 80, req))
		whole(t, d, pb, problems)
		d = f.MatchConnection(client(namespace), 80, "a.x")
		carryOut(t, d, client(namespace), 80, req)
		agree(t, d, f.ExplainConnection(client(namespace), 80, "a.x"))
		whole(t, d, pb, problems)
	}
}

// whole holds a rule that is carried out against what was written.
func whole(t *rapid.T, d route.Decision, pb *waypoint.Frontend, problems []route.Problem) {
	if d.Outcome != route.Matched {
		return
	}
	var candidates []*waypoint.Rule
	if d.Source == route.FromFallback {
		candidates = []*waypoint.Rule{pb.Ports[0].Fallback}
	}
	routes := pb.Ports[0].GetProducer().GetRoutes()
	if d.Source == route.FromConsumer {
		routes = pb.Ports[0].Consumers[0].Table.Routes
	}
	for _, r := range routes {
		for _, rule := range r.Rules {
			if r.Namespace == d.Rule.Route.Namespace && r.Name == d.Rule.Route.Name && rule.Index == d.Rule.Index && rule.Name == d.Rule.Name {
				candidates = append(candidates, rule)
			}
		}
	}
	// Rules may have one name here; one of them must be this.
	for _, r := range candidates {
		same := r.Invalid == "" && len(r.Filters) == len(d.Rule.Filters) && len(r.Backends) == len(d.Rule.Backends) &&
			len(r.Faults) == len(d.Rule.Faults) && len(r.RateLimits) == len(d.Rule.RateLimits) &&
			(r.Retry == nil) == (d.Rule.Retry == nil) && (r.SessionPersistence == nil) == (d.Rule.Session == nil)
		if same {
			return
		}
	}
	t.Fatalf("%v is none of the rules that were written; problems %v\n%s", d.Rule, problems, prototext.Format(pb))
}
