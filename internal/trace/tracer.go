package trace

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkresource "go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	oteltrace "go.opentelemetry.io/otel/trace"
)

// Kind is which end of a request a span is about.
type Kind uint8

// Kinds.
const (
	Server Kind = iota
	Client
)

// Tracer makes spans and sends them to a collector. A nil Tracer makes none.
type Tracer struct {
	queue    *queue
	provider *sdktrace.TracerProvider
	tracer   oteltrace.Tracer
}

// New builds a tracer; Run sends what it makes. Without an endpoint it makes no
// spans, and Run only waits.
func New(cfg Config) (*Tracer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if cfg.Endpoint == "" {
		return &Tracer{}, nil
	}
	exporter, err := newExporter(cfg)
	if err != nil {
		return nil, err
	}
	t := &Tracer{queue: newQueue(cfg, exporter)}
	t.provider = sdktrace.NewTracerProvider(
		// What gets here has been decided about.
		sdktrace.WithSampler(sdktrace.AlwaysSample()),
		sdktrace.WithIDGenerator(ids{}),
		sdktrace.WithResource(cfg.Resource.otel()),
		// Given, so that the environment has no say.
		sdktrace.WithRawSpanLimits(sdktrace.SpanLimits{
			AttributeValueLengthLimit: 2048, AttributeCountLimit: 64, EventCountLimit: 64, LinkCountLimit: 0,
			AttributePerEventCountLimit: 8, AttributePerLinkCountLimit: 0,
		}),
		sdktrace.WithSpanProcessor(t.queue),
	)
	t.tracer = t.provider.Tracer("github.com/ambit-mesh/ambit")
	return t, nil
}

// Run sends spans until ctx ends, and then those that wait.
func (t *Tracer) Run(ctx context.Context) error {
	if t == nil || t.queue == nil {
		<-ctx.Done()
		return nil
	}
	return t.queue.run(ctx)
}

// Enabled reports whether spans are made at all.
func (t *Tracer) Enabled() bool { return t != nil && t.tracer != nil }

// Start begins a span below parent, which Decide has decided about. It is nil
// where none is to be made; all that a nil Span's methods do is nothing.
func (t *Tracer) Start(parent Context, name string, kind Kind, start time.Time) *Span {
	if parent.Decision != Sampled || parent.muted || !t.Enabled() {
		return nil
	}
	return t.start(parent, name, kind, start)
}

func (t *Tracer) start(parent Context, name string, kind Kind, start time.Time) *Span {
	s := &Span{context: parent.Child(), Attributes: Attributes{kind: kind}}
	ctx := context.WithValue(context.Background(), idKey{}, s.context)
	// A trace that began with Decide has no span yet that could be a parent.
	if !parent.root {
		state, err := oteltrace.ParseTraceState(parent.State)
		if err != nil {
			state = oteltrace.TraceState{}
		}
		ctx = oteltrace.ContextWithRemoteSpanContext(ctx, oteltrace.NewSpanContext(oteltrace.SpanContextConfig{
			TraceID: oteltrace.TraceID(parent.TraceID), SpanID: oteltrace.SpanID(parent.SpanID), TraceFlags: oteltrace.FlagsSampled,
			TraceState: state, Remote: parent.remote,
		}))
	}
	k := oteltrace.SpanKindServer
	if kind == Client {
		k = oteltrace.SpanKindClient
	}
	_, s.span = t.tracer.Start(ctx, name, oteltrace.WithTimestamp(start), oteltrace.WithSpanKind(k))
	return s
}

// Span is a span that is being made. Its owner sets Attributes and calls End.
type Span struct {
	Attributes Attributes
	context    Context
	span       oteltrace.Span
}

// Or gives the context of what is done within the span; where there is no span,
// parent.
func (s *Span) Or(parent Context) Context {
	if s == nil {
		return parent
	}
	return s.context
}

// SetName gives the span another name, such as that of the route that was found.
func (s *Span) SetName(name string) {
	if s != nil {
		s.span.SetName(name)
	}
}

// Event notes something that happened at a time within the span.
func (s *Span) Event(at time.Time, name string) {
	if s != nil {
		s.span.AddEvent(name, oteltrace.WithTimestamp(at))
	}
}

// End hands the span over. It does not wait.
func (s *Span) End(at time.Time) {
	if s == nil {
		return
	}
	s.Attributes.set(s.span)
	s.span.End(oteltrace.WithTimestamp(at))
}

// idKey is under which start says what ids the span has.
type idKey struct{}

// ids gives the SDK the ids that were chosen already.
type ids struct{}

func (ids) NewIDs(ctx context.Context) (oteltrace.TraceID, oteltrace.SpanID) {
	c, _ := ctx.Value(idKey{}).(Context)
	return oteltrace.TraceID(c.TraceID), oteltrace.SpanID(c.SpanID)
}

func (ids) NewSpanID(ctx context.Context, _ oteltrace.TraceID) oteltrace.SpanID {
	c, _ := ctx.Value(idKey{}).(Context)
	return oteltrace.SpanID(c.SpanID)
}

// otel gives the resource as the SDK has it. It asks nothing of the machine and
// the environment.
func (r Resource) otel() *sdkresource.Resource {
	var kv []attribute.KeyValue
	for _, a := range []struct {
		key   attribute.Key
		value string
	}{
		{semconv.ServiceNameKey, r.Service},
		{semconv.ServiceNamespaceKey, r.ServiceNamespace},
		{semconv.ServiceVersionKey, r.Version},
		{semconv.K8SPodNameKey, r.Pod},
		{semconv.K8SNamespaceNameKey, r.Namespace},
		{semconv.K8SNodeNameKey, r.Node},
		{semconv.K8SClusterNameKey, r.Cluster},
	} {
		if a.value != "" {
			kv = append(kv, a.key.String(a.value))
		}
	}
	return sdkresource.NewWithAttributes(semconv.SchemaURL, kv...)
}
