package join

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rec reads a record from words: s, d or w for the reporter; in=, out= for its
// streams; open, via, denied; and a name, which Describe shows.
func rec(text string) *flowpb.FlowRecord {
	r := &flowpb.FlowRecord{Event: flowpb.FlowRecord_EVENT_ENDED, Verdict: flowpb.Verdict_VERDICT_FORWARDED}
	for word := range strings.FieldsSeq(text) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "s":
			r.Reporter = flowpb.Reporter_REPORTER_SOURCE
		case "d":
			r.Reporter = flowpb.Reporter_REPORTER_DESTINATION
		case "w":
			r.Reporter = flowpb.Reporter_REPORTER_WAYPOINT
		case "in":
			r.TunnelIn = value
		case "out":
			r.TunnelOut = value
		case "open":
			r.Event = flowpb.FlowRecord_EVENT_OPENED
		case "via":
			r.Waypoint = "ns/wp"
		case "denied":
			r.Verdict = flowpb.Verdict_VERDICT_DENIED
		default:
			r.Reason = word
		}
	}
	return r
}

// describe gives calls as the names of their records, - for one that is missing.
func describe(calls []Call) string {
	var all []string
	for _, c := range calls {
		name := func(r *flowpb.FlowRecord) string {
			if r == nil {
				return "-"
			}
			return r.GetReason()
		}
		text := name(c.Source) + ">" + name(c.Destination)
		if c.Waypoint != nil {
			text = name(c.Source) + ">" + name(c.Waypoint) + ">" + name(c.Destination)
		}
		all = append(all, text)
	}
	return strings.Join(all, " ")
}

func TestJoin(t *testing.T) {
	type step struct {
		at   int // in milliseconds
		add  string
		want string // calls that are given at this step, those that expire first
	}
	for name, steps := range map[string][]step{
		"both ends":           {{0, "s out=a S", ""}, {1, "d in=a D", "S>D"}, {5000, "", ""}},
		"the other way round": {{0, "d in=a D", ""}, {1, "s out=a S", "S>D"}},
		"nothing encrypted":   {{0, "s S", "S>-"}, {0, "d D", "->D"}},
		"opened is no call":   {{0, "s open S", ""}, {0, "s out=a open S", ""}, {0, "d in=a open D", ""}, {5000, "", ""}},
		"one is missing":      {{0, "s out=a S", ""}, {999, "", ""}, {1000, "", "S>-"}},
		"late, and the same":  {{0, "s out=a S", ""}, {1000, "", "S>-"}, {1001, "d in=a D", ""}, {9000, "", ""}},
		"late, and another outcome": {
			{0, "s out=a S", ""}, {1000, "", "S>-"}, {1001, "d in=a denied D", "->D"},
		},
		"denied at both ends": {{0, "d in=a denied D", ""}, {0, "s out=a denied S", "S>D"}},
		"a request, its streams are open": {
			{0, "s out=a open S", ""},
			{0, "d in=b open D", ""},
			{1, "w in=a out=b W", "S>W>D"},
			{2, "w in=a out=b W2", "S>W2>D"},
			{9, "s out=a via S", ""},
			{10, "d in=b D", ""},
			{5000, "", ""},
		},
		"a request, then its streams end": {
			{0, "w in=a out=b W", ""}, {0, "d in=b D", ""}, {1, "s out=a via S", "S>W>D"}, {5000, "", ""},
		},
		"streams end, then the request comes": {
			{0, "s out=a via S", ""}, {0, "d in=b D", ""}, {1, "w in=a out=b W", "S>W>D"}, {5000, "", ""},
		},
		"the context is passed on": {
			{0, "d in=a D", ""}, {0, "s out=a via S", ""}, {1, "w in=a out=a W", "S>W>D"}, {5000, "", ""},
		},
		"streams that nobody tells of are awaited once": {
			{0, "w in=a out=b W", ""},
			{1, "w in=a out=b W2", ""},
			{1000, "", "->W>- ->W2>-"},
			{1001, "w in=a out=b W3", "->W3>-"},
			{1002, "d in=b open D", ""},
			{1003, "w in=a out=b W4", "->W4>D"},
		},
		"one request expires, others of its stream need not wait": {
			{0, "d in=b open D", ""}, {0, "w in=a out=b W", ""}, {500, "w in=a out=b W2", ""}, {1000, "", "->W>D ->W2>D"},
		},
		"a waypoint answers itself":       {{0, "s out=a open S", ""}, {1, "w in=a W", "S>W>-"}},
		"a client outside of the mesh":    {{0, "d in=b open D", ""}, {1, "w out=b W", "->W>D"}},
		"a waypoint without any stream":   {{0, "w W", "->W>-"}},
		"a waypoint that carried nothing": {{0, "s out=a via denied S", ""}, {1000, "", "S>-"}},
	} {
		t.Run(name, func(t *testing.T) {
			j := New(Config{})
			at := func(ms int) time.Time { return time.Unix(0, 0).Add(time.Duration(ms) * time.Millisecond) }
			for i, s := range steps {
				got := j.Expire(at(s.at))
				if s.add != "" {
					got = append(got, j.Add(rec(s.add), at(s.at))...)
				}
				if d := describe(got); d != s.want {
					t.Fatalf("step %d (%s): %q, want %q", i+1, s.add, d, s.want)
				}
			}
			if _, waits := j.Next(); waits {
				t.Errorf("left over: %s", describe(j.Flush()))
			}
		})
	}
}

// Whatever the order in which records come, each call is given once and whole.
func TestAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var records []*flowpb.FlowRecord
		var want []string
		for i := range rapid.IntRange(0, 5).Draw(t, "connections") {
			records = append(records, rec(fmt.Sprintf("s out=c%d S%d", i, i)), rec(fmt.Sprintf("d in=c%d D%d", i, i)))
			want = append(want, fmt.Sprintf("S%d>D%d", i, i))
		}
		// Clients share streams of the waypoint.
		streams := rapid.IntRange(1, 3).Draw(t, "streams")
		if n := rapid.IntRange(0, 8).Draw(t, "requests"); n > 0 {
			used := map[string]bool{}
			for i := range n {
				in, out := rapid.IntRange(0, streams-1).Draw(t, "in"), rapid.IntRange(0, streams-1).Draw(t, "out")
				records = append(records, rec(fmt.Sprintf("w in=a%d out=b%d W%d", in, out, i)))
				want = append(want, fmt.Sprintf("A%d>W%d>B%d", in, i, out))
				used[fmt.Sprintf("s out=a%d via A%d", in, in)], used[fmt.Sprintf("d in=b%d B%d", out, out)] = true, true
			}
			for text := range used {
				records = append(records, rec(text))
			}
			slices.SortFunc(records, func(a, b *flowpb.FlowRecord) int { return strings.Compare(a.GetReason(), b.GetReason()) })
		}
		records = rapid.Permutation(records).Draw(t, "order")
		j := New(Config{})
		var calls []Call
		for i, r := range records {
			calls = append(calls, j.Add(r, time.Unix(0, int64(i)))...)
		}
		calls = append(calls, j.Flush()...)
		got := strings.Fields(describe(calls))
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("got  %v\nwant %v", got, want)
		}
	})
}

// What waits and what is remembered has a bound.
func TestBounds(t *testing.T) {
	j := New(Config{Calls: 10, Streams: 20})
	given := 0
	for i := range 1000 {
		given += len(j.Add(rec(fmt.Sprintf("s out=%d S", i)), time.Unix(0, 0)))
		if len(j.streams) > 20 || j.recent.Len() > 20 || j.waiting.Len() > 10 {
			t.Fatalf("%d streams, %d waiting", len(j.streams), j.waiting.Len())
		}
	}
	if given += len(j.Flush()); given != 1000 {
		t.Errorf("%d of 1000 calls were given", given)
	}
}

func TestLateIsCounted(t *testing.T) {
	j := New(Config{})
	j.Add(rec("s out=a S"), time.Unix(0, 0))
	j.Flush()
	j.Add(rec("d in=a D"), time.Unix(0, 0))
	if j.Late() != 1 {
		t.Errorf("%d late", j.Late())
	}
}
