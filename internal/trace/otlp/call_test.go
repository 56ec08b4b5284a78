package otlp

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/internal/testkit"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/trace/attr"
)

// answers is a collector that is called, and answers as it is told, in turn; the last
// answer stands.
type answers struct {
	mu    sync.Mutex
	says  []any // error, or *collectorpb.ExportTraceServiceResponse
	calls int
	taken []*tracepb.Span
}

func (a *answers) call(_ context.Context, request []byte) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls++
	say := a.says[0]
	if len(a.says) > 1 {
		a.says = a.says[1:]
	}
	if err, ok := say.(error); ok {
		return nil, err
	}
	var req collectorpb.ExportTraceServiceRequest
	if err := proto.Unmarshal(request, &req); err != nil {
		return nil, err
	}
	for _, r := range req.GetResourceSpans() {
		for _, s := range r.GetScopeSpans() {
			a.taken = append(a.taken, s.GetSpans()...)
		}
	}
	return proto.Marshal(say.(*collectorpb.ExportTraceServiceResponse))
}

var fine = &collectorpb.ExportTraceServiceResponse{}

// sampled is a trace that begins here.
func sampled() trace.Context {
	return trace.Decide(trace.Context{}, trace.Sampling{Millionths: trace.One})
}

// What a collector answers decides about another attempt, and about what is counted.
func TestCalled(t *testing.T) {
	for name, tc := range map[string]struct {
		says            []any
		calls           int
		exported, lost  float64
		logged, noWords string
	}{
		"taken":            {[]any{fine}, 1, 3, 0, "", "dropped"},
		"busy for a while": {[]any{status.Error(codes.Unavailable, "later"), errors.New("no endpoint"), fine}, 3, 3, 0, "", "dropped"},
		"refused":          {[]any{status.Error(codes.Unauthenticated, "who are you")}, 1, 0, 3, "who are you", "refuses"},
		"refused in part": {
			[]any{&collectorpb.ExportTraceServiceResponse{PartialSuccess: &collectorpb.ExportTracePartialSuccess{RejectedSpans: 2, ErrorMessage: "too old"}}},
			1, 1, 2, "too old", "until it answers",
		},
		"refused more than there are": {
			[]any{&collectorpb.ExportTraceServiceResponse{PartialSuccess: &collectorpb.ExportTracePartialSuccess{RejectedSpans: 9}}},
			1, 0, 3, "9 spans refused", "until it answers",
		},
		"taken with a warning": {[]any{&collectorpb.ExportTraceServiceResponse{PartialSuccess: &collectorpb.ExportTracePartialSuccess{ErrorMessage: "slow down"}}}, 1, 3, 0, "", "dropped"},
	} {
		t.Run(name, func(t *testing.T) {
			a, m := &answers{says: tc.says}, NewMetrics(prometheus.NewRegistry())
			core, logs := observer.New(zap.InfoLevel)
			tr, _, stop := runWith(t, trace.Config{Interval: time.Hour, Batch: 3, Log: zap.New(core)}, called{a.call}, m)
			for range 3 {
				tr.Start(sampled(), "GET", trace.Server, now).End(now)
			}
			testkit.Until(t, "all are accounted for", func() bool {
				return testutil.ToFloat64(m.exported)+testutil.ToFloat64(m.dropped.WithLabelValues("export_failed")) == 3
			})
			stop()
			if a.calls != tc.calls || testutil.ToFloat64(m.exported) != tc.exported || testutil.ToFloat64(m.dropped.WithLabelValues("export_failed")) != tc.lost {
				t.Errorf("%d calls, %v exported, %v dropped", a.calls, testutil.ToFloat64(m.exported), testutil.ToFloat64(m.dropped.WithLabelValues("export_failed")))
			}
			var said strings.Builder
			for _, l := range logs.All() {
				said.WriteString(l.Message)
				for _, v := range l.ContextMap() {
					said.WriteString(" " + v.(string))
				}
			}
			if !strings.Contains(said.String(), tc.logged) || strings.Contains(said.String(), tc.noWords) {
				t.Errorf("logged: %s", said.String())
			}
		})
	}
}

// Attempts end when the time of the batch is up.
func TestCalledGivesUp(t *testing.T) {
	a := &answers{says: []any{errors.New("no endpoint")}}
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if err := (called{a.call}).UploadTraces(ctx, nil); err == nil || !strings.Contains(err.Error(), "no endpoint") {
		t.Errorf("%v", err)
	}
}

// A span that ends after nobody sends any more is counted.
func TestEndedTooLate(t *testing.T) {
	a, m := &answers{says: []any{fine}}, NewMetrics(prometheus.NewRegistry())
	tr, q, stop := runWith(t, trace.Config{}, called{a.call}, m)
	s := tr.Start(sampled(), "GET", trace.Server, now)
	stop()
	s.End(now)
	if n := testutil.ToFloat64(m.dropped.WithLabelValues("stopped")); n != 1 || len(q.spans) != 0 {
		t.Errorf("%v counted, %d kept", n, len(q.spans))
	}
}

// every gives attributes of which none is zero.
func every() *trace.Attributes {
	a := new(trace.Attributes)
	v := reflect.ValueOf(a).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); {
		case f.Kind() == reflect.String:
			f.SetString("BREW")
		case f.CanInt():
			f.SetInt(7)
		case f.CanUint():
			f.SetUint(1)
		case f.Kind() == reflect.Bool:
			f.SetBool(true)
		}
	}
	return a
}

// recorded gives the attributes of a span.
func recorded(t *testing.T, a *trace.Attributes) map[attribute.Key]attribute.Value {
	t.Helper()
	rec := tracetest.NewSpanRecorder()
	_, s := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(rec)).Tracer("").Start(t.Context(), "x")
	set(s, a)
	s.End()
	out := map[attribute.Key]attribute.Value{}
	for _, kv := range rec.Ended()[0].Attributes() {
		out[kv.Key] = kv.Value
	}
	return out
}

// What a configuration may refer to is what spans have.
func TestKnownAttributes(t *testing.T) {
	var got []string
	for k := range recorded(t, every()) {
		got = append(got, string(k))
	}
	slices.Sort(got)
	if want := attr.Keys(); !slices.Equal(got, want) {
		t.Errorf("spans have %v\nknown are %v", got, want)
	}
	for _, k := range got {
		if !attr.Known(k) {
			t.Errorf("%s is not known", k)
		}
	}
	if attr.Known("http.request") || attr.Known("") {
		t.Error("what is none is known")
	}
}

func TestExtraAttributes(t *testing.T) {
	got := recorded(t, &trace.Attributes{Method: "GET", Path: "/a\xff", Status: 404, UserAgent: "\xc3\x28", Extra: []trace.Extra{
		{Name: "team", Value: "shop"},
		{Name: "code", Of: "http.response.status_code"},
		{Name: "none", Of: "rpc.method"},
		{Name: "again", Of: "team"},
		{Name: "url.path", Value: "/hidden"},
		{Name: "odd", Value: "\xfe"},
		{Name: "method", Of: "http.request.method"},
	}})
	for k, want := range map[attribute.Key]any{
		"team": "shop", "code": int64(404), "url.path": "/hidden", "odd": "\uFFFD", "method": "GET", "http.response.status_code": int64(404), "user_agent.original": "\uFFFD(",
	} {
		if got[k].AsInterface() != want {
			t.Errorf("%s is %v, want %v", k, got[k].AsInterface(), want)
		}
	}
	if len(got) != 8 {
		t.Errorf("%v", got)
	}
}

// Bytes that are no text cost neither the span nor others of its batch.
func TestNoText(t *testing.T) {
	a, m := &answers{says: []any{fine}}, NewMetrics(prometheus.NewRegistry())
	tr, _, stop := runWith(t, trace.Config{}, called{a.call}, m)
	s := tr.Start(sampled(), "GET", trace.Server, now)
	s.Attributes = trace.Attributes{UserAgent: "\xff", Extra: []trace.Extra{{Name: "user", Value: "\xff"}}}
	s.End(now)
	stop()
	if len(a.taken) != 1 {
		t.Errorf("%d spans were taken", len(a.taken))
	}
}

func FuzzTaken(f *testing.F) {
	for _, r := range []*collectorpb.ExportTraceServiceResponse{fine, {PartialSuccess: &collectorpb.ExportTracePartialSuccess{RejectedSpans: 2, ErrorMessage: "no"}}} {
		b, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var refused *refusedError
		if err := taken(b); errors.As(err, &refused) && refused.spans <= 0 {
			t.Errorf("%d spans refused", refused.spans)
		}
	})
}
