package traces

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// Span is one span of a trace.
type Span struct {
	Trace, ID, Parent string
	Service, Name     string
	Start, End        time.Time
	Failed            bool
	Attributes        map[string]string
	Events            []string
}

// maxTraces is how many are kept.
const maxTraces = 1000

// Collector keeps spans.
type Collector struct {
	collectorpb.UnimplementedTraceServiceServer
	listener net.Listener

	mu     sync.Mutex
	traces map[string][]Span // guarded by mu
	order  []string          // ids of traces, the oldest first; guarded by mu
	more   chan struct{}     // closed and replaced when spans come; guarded by mu
}

// Listen opens an address, such as :4317.
func Listen(address string) (*Collector, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("collector: %w", err)
	}
	return &Collector{listener: l, traces: make(map[string][]Span), more: make(chan struct{})}, nil
}

// Addr is where the collector listens.
func (c *Collector) Addr() net.Addr { return c.listener.Addr() }

// Run serves until ctx ends.
func (c *Collector) Run(ctx context.Context) error {
	srv := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(srv, c)
	stop := context.AfterFunc(ctx, srv.Stop)
	defer stop()
	err := srv.Serve(c.listener)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Export takes spans.
func (c *Collector) Export(_ context.Context, req *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range req.GetResourceSpans() {
		service := attributes(r.GetResource().GetAttributes())["service.name"]
		for _, scope := range r.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				c.keep(spanOf(s, service))
			}
		}
	}
	close(c.more)
	c.more = make(chan struct{})
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

// keep adds a span. c.mu is held.
func (c *Collector) keep(s Span) {
	if _, known := c.traces[s.Trace]; !known {
		c.order = append(c.order, s.Trace)
		if len(c.order) > maxTraces {
			delete(c.traces, c.order[0])
			c.order = c.order[1:]
		}
	}
	c.traces[s.Trace] = append(c.traces[s.Trace], s)
}

func spanOf(s *tracepb.Span, service string) Span {
	out := Span{
		Trace: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()), Parent: hex.EncodeToString(s.GetParentSpanId()),
		Service: service, Name: s.GetName(), Start: time.Unix(0, int64(s.GetStartTimeUnixNano())), End: time.Unix(0, int64(s.GetEndTimeUnixNano())),
		Failed: s.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR, Attributes: attributes(s.GetAttributes()),
	}
	for _, e := range s.GetEvents() {
		out.Events = append(out.Events, e.GetName())
	}
	return out
}

func attributes(kv []*commonpb.KeyValue) map[string]string {
	m := make(map[string]string, len(kv))
	for _, a := range kv {
		switch v := a.GetValue().GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			m[a.GetKey()] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			m[a.GetKey()] = fmt.Sprint(v.IntValue)
		case *commonpb.AnyValue_BoolValue:
			m[a.GetKey()] = fmt.Sprint(v.BoolValue)
		case *commonpb.AnyValue_DoubleValue:
			m[a.GetKey()] = fmt.Sprint(v.DoubleValue)
		}
	}
	return m
}

// Trace gives the spans of a trace that have come.
func (c *Collector) Trace(id string) []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Span(nil), c.traces[id]...)
}

// Await waits until a trace is complete enough.
func (c *Collector) Await(ctx context.Context, id string, enough func([]Span) bool) ([]Span, error) {
	for {
		c.mu.Lock()
		spans, more := append([]Span(nil), c.traces[id]...), c.more
		c.mu.Unlock()
		if enough(spans) {
			return spans, nil
		}
		select {
		case <-ctx.Done():
			return spans, fmt.Errorf("trace %s has %d spans: %w", id, len(spans), ctx.Err())
		case <-more:
		}
	}
}

// Handler shows traces: /trace/ID as a tree, and / the ids of those that are kept.
func (c *Collector) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /trace/{id}", func(w http.ResponseWriter, r *http.Request) {
		spans := c.Trace(r.PathValue("id"))
		if len(spans) == 0 {
			http.Error(w, "no span of this trace has come", http.StatusNotFound)
			return
		}
		fmt.Fprint(w, Tree(spans))
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		c.mu.Lock()
		ids := append([]string(nil), c.order...)
		c.mu.Unlock()
		for _, id := range ids {
			fmt.Fprintln(w, id)
		}
	})
	return mux
}
