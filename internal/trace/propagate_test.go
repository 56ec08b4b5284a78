package trace

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ambit-mesh/ambit/internal/message"
)

const (
	tid  = "4bf92f3577b34da6a3ce929d0e0e4736"
	sid  = "00f067aa0ba902b7"
	sid2 = "05e3ac9a4f6e3b90"
)

// fields reads "name: value" lines.
func fields(lines ...string) message.Fields {
	var f message.Fields
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		f.Add(name, value)
	}
	return f
}

func TestExtract(t *testing.T) {
	member := func(n int) string {
		var all []string
		for i := range n {
			all = append(all, "k"+strings.Repeat("x", i)+"=v")
		}
		return strings.Join(all, ",")
	}
	type want struct {
		trace, span, state string
		decision           Decision
		debug              bool
	}
	none := want{}
	sampled := want{trace: tid, span: sid, decision: Sampled}
	unsampled := want{trace: tid, span: sid, decision: NotSampled}
	with := func(w want, state string) want { w.state = state; return w }
	for name, tc := range map[string]struct {
		fields []string
		want   want
	}{
		"nothing":                    {nil, none},
		"W3C sampled":                {[]string{"traceparent: 00-" + tid + "-" + sid + "-01"}, sampled},
		"W3C not sampled":            {[]string{"traceparent: 00-" + tid + "-" + sid + "-00"}, unsampled},
		"W3C flags unknown":          {[]string{"traceparent: 00-" + tid + "-" + sid + "-fe"}, unsampled},
		"W3C version to come":        {[]string{"traceparent: 01-" + tid + "-" + sid + "-01"}, sampled},
		"W3C version to come, more":  {[]string{"traceparent: cc-" + tid + "-" + sid + "-01-what-else"}, sampled},
		"W3C version to come, glued": {[]string{"traceparent: cc-" + tid + "-" + sid + "-01x"}, none},
		"W3C version ff":             {[]string{"traceparent: ff-" + tid + "-" + sid + "-01"}, none},
		"W3C version 00, more":       {[]string{"traceparent: 00-" + tid + "-" + sid + "-01-x"}, none},
		"W3C upper case":             {[]string{"traceparent: 00-" + strings.ToUpper(tid) + "-" + sid + "-01"}, none},
		"W3C trace 0":                {[]string{"traceparent: 00-" + strings.Repeat("0", 32) + "-" + sid + "-01"}, none},
		"W3C span 0":                 {[]string{"traceparent: 00-" + tid + "-" + strings.Repeat("0", 16) + "-01"}, none},
		"W3C short":                  {[]string{"traceparent: 00-" + tid + "-" + sid + "-1"}, none},
		"W3C twice":                  {[]string{"traceparent: 00-" + tid + "-" + sid + "-01", "traceparent: 00-" + tid + "-" + sid + "-01"}, none},
		"W3C state":                  {[]string{"traceparent: 00-" + tid + "-" + sid + "-01", "tracestate: a=1,b@c=2"}, with(sampled, "a=1,b@c=2")},
		"W3C state in two lines":     {[]string{"traceparent: 00-" + tid + "-" + sid + "-01", "tracestate: a=1", "tracestate: b=2 "}, with(sampled, "a=1,b=2")},
		"W3C state empty members":    {[]string{"traceparent: 00-" + tid + "-" + sid + "-01", "tracestate: a=1,, ,b=2"}, with(sampled, "a=1,, ,b=2")},
		"W3C state repeated key":     {[]string{"traceparent: 00-" + tid + "-" + sid + "-01", "tracestate: a=1,a=2"}, sampled},
		"W3C state upper case key":   {[]string{"traceparent: 00-" + tid + "-" + sid + "-01", "tracestate: A=1"}, sampled},
		"W3C state no value":         {[]string{"traceparent: 00-" + tid + "-" + sid + "-01", "tracestate: a"}, sampled},
		"W3C state two equals":       {[]string{"traceparent: 00-" + tid + "-" + sid + "-01", "tracestate: a=b=c"}, sampled},
		"W3C state 32 members":       {[]string{"traceparent: 00-" + tid + "-" + sid + "-01", "tracestate: " + member(32)}, with(sampled, member(32))},
		"W3C state 33 members":       {[]string{"traceparent: 00-" + tid + "-" + sid + "-01", "tracestate: " + member(33)}, sampled},
		"state alone":                {[]string{"tracestate: a=1"}, none},

		"B3":                  {[]string{"b3: " + tid + "-" + sid + "-1"}, sampled},
		"B3 not sampled":      {[]string{"b3: " + tid + "-" + sid + "-0"}, unsampled},
		"B3 undecided":        {[]string{"b3: " + tid + "-" + sid}, want{trace: tid, span: sid}},
		"B3 debug":            {[]string{"b3: " + tid + "-" + sid + "-d"}, want{trace: tid, span: sid, decision: Sampled, debug: true}},
		"B3 parent":           {[]string{"b3: " + tid + "-" + sid + "-1-" + sid2}, sampled},
		"B3 short trace":      {[]string{"b3: " + tid[16:] + "-" + sid + "-1"}, want{trace: strings.Repeat("0", 16) + tid[16:], span: sid, decision: Sampled}},
		"B3 deny alone":       {[]string{"b3: 0"}, want{trace: strings.Repeat("0", 32), span: strings.Repeat("0", 16), decision: NotSampled}},
		"B3 too many":         {[]string{"b3: " + tid + "-" + sid + "-1-" + sid2 + "-x"}, none},
		"B3 bad decision":     {[]string{"b3: " + tid + "-" + sid + "-2"}, none},
		"B3 bad parent":       {[]string{"b3: " + tid + "-" + sid + "-1-xyz"}, none},
		"B3 odd trace":        {[]string{"b3: " + tid[1:] + "-" + sid + "-1"}, none},
		"B3 twice":            {[]string{"b3: " + tid + "-" + sid + "-1", "b3: 0"}, none},
		"W3C wins over B3":    {[]string{"b3: 0", "traceparent: 00-" + tid + "-" + sid + "-01"}, sampled},
		"B3 where W3C is bad": {[]string{"b3: " + tid + "-" + sid + "-1", "traceparent: nonsense"}, sampled},

		"B3 fields":            {[]string{"x-b3-traceid: " + tid, "x-b3-spanid: " + sid, "x-b3-sampled: 1", "x-b3-parentspanid: " + sid2}, sampled},
		"B3 fields in words":   {[]string{"x-b3-traceid: " + tid, "x-b3-spanid: " + sid, "x-b3-sampled: false"}, unsampled},
		"B3 fields undecided":  {[]string{"x-b3-traceid: " + tid, "x-b3-spanid: " + sid}, want{trace: tid, span: sid}},
		"B3 fields debug":      {[]string{"x-b3-traceid: " + tid, "x-b3-spanid: " + sid, "x-b3-flags: 1"}, want{trace: tid, span: sid, decision: Sampled, debug: true}},
		"B3 fields deny alone": {[]string{"x-b3-sampled: 0"}, want{trace: strings.Repeat("0", 32), span: strings.Repeat("0", 16), decision: NotSampled}},
		"B3 fields no span":    {[]string{"x-b3-traceid: " + tid, "x-b3-sampled: 1"}, none},
		"B3 fields twice":      {[]string{"x-b3-traceid: " + tid, "x-b3-traceid: " + tid, "x-b3-spanid: " + sid}, none},
		"B3 fields bad flag":   {[]string{"x-b3-traceid: " + tid, "x-b3-spanid: " + sid, "x-b3-flags: 2"}, none},
	} {
		t.Run(name, func(t *testing.T) {
			c := Extract(fields(tc.fields...))
			got := want{state: c.State, decision: c.Decision, debug: c.Debug}
			if c.Valid() || c.Decision != Undecided {
				got.trace, got.span = c.TraceID.String(), c.SpanID.String()
			}
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(want{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What a client sent and nobody changed goes on as it is; what is malformed does
// not; and a client of B3 is answered for in B3.
func TestInject(t *testing.T) {
	all, nothing := Sampling{Millionths: One}, Sampling{}
	for name, tc := range map[string]struct {
		sampling Sampling
		in, want []string // in want, T and S stand for what is new
	}{
		"unsampled goes on": {all, []string{"a: b", "traceparent: 00-" + tid + "-" + sid + "-00", "tracestate: x=y"}, []string{"a: b", "traceparent: 00-" + tid + "-" + sid + "-00", "tracestate: x=y"}},
		"bad state is taken out": {
			nothing,
			[]string{"traceparent: 00-" + tid + "-" + sid + "-00", "tracestate: X"},
			[]string{"traceparent: 00-" + tid + "-" + sid + "-00"},
		},
		"bad parent is replaced": {nothing, []string{"traceparent: 00-x", "tracestate: x=y"}, []string{"traceparent: 00-T-S-02"}},
		"a new trace":            {all, nil, []string{"traceparent: 00-T-S-03"}},
		"untouched when off":     {Sampling{Disabled: true}, []string{"traceparent: 00-x"}, []string{"traceparent: 00-x"}},
		"B3 decided": {
			all,
			[]string{"b3: " + tid + "-" + sid},
			[]string{"b3: " + tid + "-" + sid + "-1", "traceparent: 00-" + tid + "-" + sid + "-01"},
		},
		"B3 denied": {all, []string{"b3: 0"}, []string{"b3: T-S-0", "traceparent: 00-T-S-02"}},
		"B3 goes on": {
			all,
			[]string{"x-b3-traceid: " + tid, "x-b3-spanid: " + sid, "x-b3-sampled: 0"},
			[]string{"x-b3-traceid: " + tid, "x-b3-spanid: " + sid, "x-b3-sampled: 0"},
		},
		"B3 fields decided": {
			all,
			[]string{"x-b3-traceid: " + tid, "x-b3-spanid: " + sid, "x-b3-parentspanid: " + sid2},
			[]string{"x-b3-traceid: " + tid, "x-b3-spanid: " + sid, "traceparent: 00-" + tid + "-" + sid + "-01", "x-b3-sampled: 1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := fields(tc.in...)
			c := Decide(Extract(f), tc.sampling)
			c.Inject(&f)
			var want message.Fields
			for _, l := range fields(tc.want...) {
				l.Value = strings.NewReplacer("T", c.TraceID.String(), "S", c.SpanID.String()).Replace(l.Value)
				want = append(want, l)
			}
			if diff := cmp.Diff(want, f, cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBegin(t *testing.T) {
	a, b := Begin(), Begin()
	if a.TraceID == b.TraceID || a.SpanID == b.SpanID || a.Traceparent()[52:] != "-00" || (Context{}).Traceparent() != "" {
		t.Errorf("%s and %s", a.Traceparent(), b.Traceparent())
	}
	if c, ok := ParseTraceparent(a.Traceparent()); !ok || c.TraceID != a.TraceID || c.SpanID != a.SpanID {
		t.Errorf("%s is read as %+v", a.Traceparent(), c)
	}
}

func TestDebugOfB3GoesOn(t *testing.T) {
	f := fields("x-b3-traceid: "+tid, "x-b3-spanid: "+sid, "x-b3-flags: 1", "b3: "+tid+"-"+sid+"-d")
	c := Decide(Extract(f), Sampling{}).Child()
	c.Inject(&f)
	if got := f.Get("x-b3-flags"); got != "1" {
		t.Errorf("x-b3-flags %q", got)
	}
	if want := tid + "-" + c.SpanID.String() + "-d"; f.Get("b3") != want {
		t.Errorf("b3 %q, want %q", f.Get("b3"), want)
	}
	if f.Has("x-b3-sampled") {
		t.Error("x-b3-sampled beside the flag that implies it")
	}
}

func TestSampling(t *testing.T) {
	t.Run("the parent decides", func(t *testing.T) {
		for _, d := range []Decision{NotSampled, Sampled} {
			c := Begin()
			c.Decision = d
			for _, s := range []Sampling{{}, {Millionths: One}} {
				if got := Decide(c, s).Decision; got != d {
					t.Errorf("parent said %d, share %d: decided %d", d, s.Millionths, got)
				}
			}
		}
	})
	t.Run("the share is kept, and a trace is decided alike by all", func(t *testing.T) {
		for _, share := range []uint32{0, 1, 10_000, 500_000, 999_999, One, One + 1} {
			const n = 20_000
			hits := 0
			for range n {
				c := Begin()
				c.Decision = Undecided
				first := Decide(c, Sampling{Millionths: share}).Decision
				if first != Decide(c, Sampling{Millionths: share}).Decision {
					t.Fatal("the same trace was decided differently")
				}
				if first == Sampled {
					hits++
					if Decide(c, Sampling{Millionths: min(One, share+100_000)}).Decision != Sampled {
						t.Fatal("a trace that a smaller share takes is not taken by a larger")
					}
				}
			}
			want := float64(min(share, One)) / One * n
			if d := float64(hits) - want; d > 400 || d < -400 {
				t.Errorf("share %d of %d: %d, want about %.0f", share, n, hits, want)
			}
		}
	})
}

// FuzzExtract looks for fields that panic, or that make us send what others would
// not read as the same trace.
func FuzzExtract(f *testing.F) {
	f.Add("00-"+tid+"-"+sid+"-01", "a=1,b@c=2", tid+"-"+sid+"-d", tid, sid, "1", "0")
	f.Add("cc-"+tid+"-"+sid+"-01-x", "", "0", "", "", "", "")
	f.Add("", ",", "1-2-3-4", tid[16:], sid, "true", "1")
	f.Fuzz(func(t *testing.T, parent, state, b3, trace, span, sampled, flags string) {
		var in message.Fields
		for i, v := range []string{parent, state, b3, trace, span, sampled, flags} {
			if v != "" {
				in.Add([]string{"traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-flags"}[i], v)
			}
		}
		c := Extract(in)
		if c.Valid() == (c.TraceID.IsZero() || c.SpanID.IsZero()) || len(c.State) > maxState {
			t.Fatalf("%+v", c)
		}
		d := Decide(c, Sampling{Millionths: One / 2})
		if !d.Valid() || d.Decision == Undecided {
			t.Fatalf("undecided: %+v", d)
		}
		child := d.Child()
		child.Inject(&in)
		again := Extract(in)
		if again.TraceID != child.TraceID || again.SpanID != child.SpanID || again.Decision != child.Decision || again.State != child.State {
			t.Fatalf("sent %+v, read %+v: %v", child, again, in)
		}
		if c.Valid() && child.TraceID != c.TraceID {
			t.Fatal("another trace")
		}
	})
}

// nobody is a backend that no span may reach.
type nobody struct{}

func (nobody) Start(Context, Context, string, Kind, time.Time) Recording {
	panic("a span that is not sampled")
}
func (nobody) Run(context.Context) error { return nil }

var now = time.Unix(1_700_000_000, 0)

func TestUnsampledAllocatesNothing(t *testing.T) {
	f := fields("accept: */*", "traceparent: 00-"+tid+"-"+sid+"-00", "tracestate: a=1,b=2")
	tr := NewTracer(nobody{})
	if n := testing.AllocsPerRun(100, func() {
		c := Decide(Extract(f), Sampling{Millionths: 10})
		s := tr.Start(c, "GET", Server, now)
		s.Or(c).Inject(&f)
		s.SetName("x")
		s.End(now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkUnsampled(b *testing.B) {
	f := fields("accept: */*", "user-agent: x", "x-request-id: 1", "traceparent: 00-"+tid+"-"+sid+"-00", "tracestate: a=1,b=2", "cookie: a=b")
	tr := NewTracer(nobody{})
	b.ReportAllocs()
	for b.Loop() {
		c := Decide(Extract(f), Sampling{Millionths: 10})
		s := tr.Start(c, "GET", Server, now)
		s.Or(c).Inject(&f)
		s.End(now)
	}
}

func BenchmarkUnsampledNew(b *testing.B) {
	f := fields("accept: */*", "user-agent: x", "x-request-id: 1", "cookie: a=b")
	f = f.Clone(4)
	b.ReportAllocs()
	for b.Loop() {
		g := f
		c := Decide(Extract(g), Sampling{Millionths: 10})
		c.Inject(&g)
	}
}

// What a configuration says of parents decides whether a request has a span, and what
// is passed on.
func TestParents(t *testing.T) {
	const (
		in  = "4bf92f3577b34da6ffffffffffffffff" // among those of any share
		out = "4bf92f3577b34da6ff00000000000000" // among those of the whole alone
		id  = "00f067aa0ba902b7"
	)
	w3c := func(trace, flags string) message.Fields {
		return message.Fields{{Name: "traceparent", Value: "00-" + trace + "-" + id + "-" + flags}, {Name: "tracestate", Value: "a=1"}}
	}
	ignored, half := Parent{Ignored: true}, Parent{Limited: true, Millionths: One / 2}
	for name, tc := range map[string]struct {
		fields message.Fields
		s      Sampling
		span   bool
		want   Decision // of what is passed on
		same   bool     // the fields are passed on untouched
	}{
		"as others have it":                   {w3c(out, "01"), Sampling{}, true, Sampled, false},
		"ignored, by none":                    {w3c(in, "01"), Sampling{Parent: ignored}, false, NotSampled, false},
		"ignored, by all":                     {w3c(out, "00"), Sampling{Parent: ignored, Millionths: One}, true, Sampled, false},
		"ignored, decided alike":              {w3c(in, "00"), Sampling{Parent: ignored}, false, NotSampled, true},
		"ignored, by a share that it is in":   {w3c(in, "00"), Sampling{Parent: ignored, Millionths: 1}, true, Sampled, false},
		"ignored, by a share that it is not":  {w3c(out, "01"), Sampling{Parent: ignored, Millionths: One / 2}, false, NotSampled, false},
		"limited, in the share":               {w3c(in, "01"), Sampling{Parent: half}, true, Sampled, false},
		"limited, not in the share":           {w3c(out, "01"), Sampling{Parent: half, Millionths: One}, false, Sampled, true},
		"limited, to nothing":                 {w3c(in, "01"), Sampling{Parent: Parent{Limited: true}}, false, Sampled, true},
		"limited, not sampled":                {w3c(in, "00"), Sampling{Parent: half, Millionths: One}, false, NotSampled, true},
		"limited, nobody has decided":         {nil, Sampling{Parent: Parent{Limited: true}, Millionths: One}, true, Sampled, false},
		"limited, a decision and no trace":    {message.Fields{{Name: "b3", Value: "1"}}, Sampling{Parent: Parent{Limited: true}}, false, Sampled, true},
		"B3 debug, ignored":                   {message.Fields{{Name: "b3", Value: in + "-" + id + "-d"}}, Sampling{Parent: ignored}, false, NotSampled, false},
		"B3 in fields, debug, ignored":        {message.Fields{{Name: "x-b3-traceid", Value: in}, {Name: "x-b3-spanid", Value: id}, {Name: "x-b3-flags", Value: "1"}}, Sampling{Parent: ignored}, false, NotSampled, false},
		"B3 debug, limited":                   {message.Fields{{Name: "b3", Value: out + "-" + id + "-d"}}, Sampling{Parent: half}, false, Sampled, true},
		"B3 not sampled, ignored":             {message.Fields{{Name: "b3", Value: "0"}}, Sampling{Parent: ignored, Millionths: One}, true, Sampled, false},
		"disabled comes first":                {w3c(in, "01"), Sampling{Disabled: true, Parent: ignored}, false, Sampled, true},
		"limited and ignored looks at nobody": {w3c(in, "01"), Sampling{Parent: Parent{Ignored: true, Limited: true}, Millionths: One}, true, Sampled, false},
	} {
		t.Run(name, func(t *testing.T) {
			came := Extract(tc.fields)
			c := Decide(came, tc.s)
			span := NewTracer(nowhere{}).Start(c, "GET", Server, time.Time{})
			if (span != nil) != tc.span {
				t.Errorf("a span: %v", span != nil)
			}
			sent := tc.fields.Clone(4)
			span.Or(c).Inject(&sent)
			if tc.same != slices.Equal(sent, tc.fields) && tc.fields != nil {
				t.Errorf("passed on: %v", sent)
			}
			after := Extract(sent)
			if after.Decision != tc.want || after.Debug && !tc.same {
				t.Errorf("passed on: %v", sent)
			}
			if !came.TraceID.IsZero() && after.TraceID != came.TraceID {
				t.Errorf("trace %s has become %s", came.TraceID, after.TraceID)
			}
		})
	}
}

// A decision without a trace is one of the share as often as others are.
func TestLimitedWithoutTrace(t *testing.T) {
	n := 0
	for range 1000 {
		c := Decide(Context{Decision: Sampled}, Sampling{Parent: Parent{Limited: true, Millionths: One / 2}})
		if NewTracer(nowhere{}).Start(c, "GET", Server, time.Time{}) != nil {
			n++
		}
	}
	if n < 350 || n > 650 { // nine standard deviations
		t.Errorf("%d of 1000, with a share of a half", n)
	}
}

// nowhere is a backend that keeps nothing.
type nowhere struct{ Recording }

func (n nowhere) Start(_, _ Context, _ string, _ Kind, _ time.Time) Recording { return n }

func (nowhere) Run(context.Context) error { return nil }
