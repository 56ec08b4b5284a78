package route_test

import (
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// spoil makes an expression unreadable that keeps its length, and with it its
// place in precedence.
func spoil(pattern string) string {
	if pattern == "" {
		return pattern
	}
	return "(" + pattern[1:]
}

func spoilValue(t *rapid.T, v *waypoint.ValueMatch) {
	if re, ok := v.Type.(*waypoint.ValueMatch_Regex); ok && rapid.Bool().Draw(t, "as regex") {
		re.Regex = spoil(re.Regex)
		return
	}
	v.Type = nil
}

// spoilRule breaks one thing of a rule.
func spoilRule(t *rapid.T, r *waypoint.Rule) {
	var m *waypoint.Match
	if len(r.Matches) > 0 {
		m = rapid.SampledFrom(r.Matches).Draw(t, "match")
	}
	what := rapid.IntRange(0, 5).Draw(t, "what")
	switch {
	case what == 0 && m.GetPath() != nil:
		if re, ok := m.Path.Type.(*waypoint.PathMatch_Regex); ok {
			re.Regex = spoil(re.Regex)
		} else {
			m.Path.Type = nil
		}
	case what == 1 && len(m.GetHeaders()) > 0:
		spoilValue(t, rapid.SampledFrom(m.Headers).Draw(t, "header"))
	case what == 2 && len(m.GetQueryParams()) > 0:
		spoilValue(t, rapid.SampledFrom(m.QueryParams).Draw(t, "parameter"))
	case what == 3 && m.GetGrpc().GetRegex():
		m.Grpc.Service, m.Grpc.Method = spoil(m.Grpc.Service), spoil(m.Grpc.Method)
	case what == 4:
		r.Invalid = "broken"
	default:
		r.Filters = append(r.Filters, &waypoint.Filter{})
	}
}

// Breaking a rule opens nothing: every request has the rule that it had, or is
// refused. None gets past the broken rule to another one.
func TestBreakingOpensNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pb := genFrontend(t)
		broken := proto.Clone(pb).(*waypoint.Frontend)
		table := broken.Ports[0].Producer
		if len(broken.Ports[0].Consumers) > 0 && rapid.Bool().Draw(t, "consumer") {
			table = broken.Ports[0].Consumers[0].Table
		}
		var rules []*waypoint.Rule
		for _, r := range table.GetRoutes() {
			rules = append(rules, r.Rules...)
		}
		if len(rules) == 0 {
			return
		}
		spoilRule(t, rapid.SampledFrom(rules).Draw(t, "rule"))
		before, _ := route.Compile(pb)
		after, _ := route.Compile(broken)
		for range 8 {
			req, c := genRequest(t), client(namespacesGen.Draw(t, "client"))
			b, a := before.Match(c, 80, req), after.Match(c, 80, req)
			if a.Outcome == route.Invalid {
				continue
			}
			if a.Outcome != b.Outcome || a.Source != b.Source || (a.Rule == nil) != (b.Rule == nil) || a.Rule != nil && a.Rule.ID() != b.Rule.ID() {
				t.Fatalf("%s %s %v: before %v %v, after %v %v\n%s\n%s", req.Method, req.Path, req.Fields, b.Outcome, b.Rule, a.Outcome, a.Rule, prototext.Format(pb), prototext.Format(broken))
			}
		}
	})
}
