package route

import (
	"cmp"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// entry is one match of a rule in a table. A rule without matches has one that
// every request meets.
type entry struct {
	match *match
	rule  *Rule
	// number of the match in the rule; -1 when the rule has none.
	number int
	// order in the table; the lowest that matches wins.
	order int
	// plain is that of the match.
	plain bool
	rank  rank
	// age is that of the route, with its name.
	age age
	// route and position of the rule as they came, the last ties.
	route, position int
}

// rank is what the Gateway API orders matches by, the greater first (package
// comment).
type rank [9]int

func rankOf(m *match) rank {
	serviceClass, serviceLength := grpcRank(m.grpc.service)
	methodClass, methodLength := grpcRank(m.grpc.method)
	method := 0
	if m.method != "" {
		method = 1
	}
	return rank{
		int(m.path.class), m.path.length(), serviceClass, serviceLength, methodClass, methodLength,
		method, len(m.headers), len(m.params),
	}
}

// grpcRank orders names as GRPCRouteRule.Matches does, by characters. Exact names
// that match one request are equally long.
func grpcRank(t *text) (class, length int) {
	switch {
	case t == nil:
		return 0, 0
	case t.expression:
		return 1, len(t.written)
	}
	return 2, len(t.exact)
}

// age orders routes: by creation, then by name.
type age struct {
	created *timestamppb.Timestamp
	name    string
}

// compareAges puts routes that do not say when they were created last.
func compareAges(a, b age) int {
	switch {
	case a.created == nil && b.created == nil:
		return strings.Compare(a.name, b.name)
	case a.created == nil:
		return 1
	case b.created == nil:
		return -1
	}
	return cmp.Or(
		cmp.Compare(a.created.GetSeconds(), b.created.GetSeconds()),
		cmp.Compare(a.created.GetNanos(), b.created.GetNanos()),
		strings.Compare(a.name, b.name))
}

// compareEntries gives a negative number when a comes before b.
func compareEntries(a, b *entry) int {
	for i := range a.rank {
		if c := cmp.Compare(b.rank[i], a.rank[i]); c != 0 {
			return c
		}
	}
	return cmp.Or(
		compareAges(a.age, b.age), cmp.Compare(a.route, b.route),
		cmp.Compare(a.position, b.position), cmp.Compare(a.number, b.number))
}
