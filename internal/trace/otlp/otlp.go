package otlp

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	sdkresource "go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/ambit-mesh/ambit/internal/trace"
)

// backend records with the OpenTelemetry SDK.
type backend struct {
	*queue
	tracer oteltrace.Tracer
}

// New builds a tracer whose spans go to a collector; its Run sends them. Without
// an endpoint it makes no spans.
func New(cfg trace.Config, m *Metrics) (*trace.Tracer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Endpoint == "" {
		return trace.NewTracer(nil), nil
	}
	cfg = cfg.WithDefaults()
	client, err := dialed(cfg)
	if err != nil {
		return nil, err
	}
	return trace.NewTracer(newBackend(cfg, client, m)), nil
}

// Through builds a tracer whose spans are handed over by calls, and not at the
// endpoint of cfg.
func Through(cfg trace.Config, call Call, m *Metrics) (*trace.Tracer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return trace.NewTracer(newBackend(cfg.WithDefaults(), called{call}, m)), nil
}

func newBackend(cfg trace.Config, client otlptrace.Client, m *Metrics) *backend {
	q := newQueue(cfg, otlptrace.NewUnstarted(client), m)
	provider := sdktrace.NewTracerProvider(
		// What gets here has been decided about.
		sdktrace.WithSampler(sdktrace.AlwaysSample()),
		sdktrace.WithIDGenerator(ids{}),
		sdktrace.WithResource(resource(cfg.Resource)),
		// Given, so that the environment has no say.
		sdktrace.WithRawSpanLimits(sdktrace.SpanLimits{
			AttributeValueLengthLimit: 2048, AttributeCountLimit: 64, EventCountLimit: 64, LinkCountLimit: 0,
			AttributePerEventCountLimit: 8, AttributePerLinkCountLimit: 0,
		}),
		sdktrace.WithSpanProcessor(q),
	)
	return &backend{queue: q, tracer: provider.Tracer("github.com/ambit-mesh/ambit")}
}

// Start implements trace.Backend.
func (b *backend) Start(parent, span trace.Context, name string, kind trace.Kind, start time.Time) trace.Recording {
	ctx := context.WithValue(context.Background(), idKey{}, span)
	if !parent.SpanID.IsZero() {
		state, err := oteltrace.ParseTraceState(parent.State)
		if err != nil {
			state = oteltrace.TraceState{}
		}
		ctx = oteltrace.ContextWithRemoteSpanContext(ctx, oteltrace.NewSpanContext(oteltrace.SpanContextConfig{
			TraceID: oteltrace.TraceID(parent.TraceID), SpanID: oteltrace.SpanID(parent.SpanID), TraceFlags: oteltrace.FlagsSampled,
			TraceState: state,
		}))
	}
	k := oteltrace.SpanKindServer
	if kind == trace.Client {
		k = oteltrace.SpanKindClient
	}
	_, s := b.tracer.Start(ctx, name, oteltrace.WithTimestamp(start), oteltrace.WithSpanKind(k))
	return recording{s}
}

// recording is a span of the SDK.
type recording struct{ span oteltrace.Span }

func (r recording) SetName(name string) { r.span.SetName(name) }

func (r recording) Event(at time.Time, name string) {
	r.span.AddEvent(name, oteltrace.WithTimestamp(at))
}

func (r recording) End(at time.Time, a *trace.Attributes) {
	set(r.span, a)
	r.span.End(oteltrace.WithTimestamp(at))
}

// idKey is under which Start says what ids the span has.
type idKey struct{}

// ids gives the SDK the ids that were chosen already.
type ids struct{}

func (ids) NewIDs(ctx context.Context) (oteltrace.TraceID, oteltrace.SpanID) {
	c, _ := ctx.Value(idKey{}).(trace.Context)
	return oteltrace.TraceID(c.TraceID), oteltrace.SpanID(c.SpanID)
}

func (ids) NewSpanID(ctx context.Context, _ oteltrace.TraceID) oteltrace.SpanID {
	c, _ := ctx.Value(idKey{}).(trace.Context)
	return oteltrace.SpanID(c.SpanID)
}

// resource gives a resource as the SDK has it. It asks nothing of the machine and
// the environment.
func resource(r trace.Resource) *sdkresource.Resource {
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
