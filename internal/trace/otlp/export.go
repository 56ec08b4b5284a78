package otlp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/ambit-mesh/ambit/internal/trace"
)

// dialed gives a client that connects to the endpoint itself.
func dialed(cfg trace.Config) (otlptrace.Client, error) {
	address, secure, err := cfg.Address()
	if err != nil {
		return nil, err
	}
	opts := []otlptracegrpc.Option{
		otlptracegrpc.WithEndpoint(address), otlptracegrpc.WithHeaders(cfg.Headers), otlptracegrpc.WithTimeout(cfg.Timeout),
		// A batch that cannot be handed over in time is given up: the next ones wait.
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{Enabled: true, InitialInterval: firstPause, MaxInterval: longestPause, MaxElapsedTime: cfg.Timeout}),
	}
	if secure {
		config := cfg.TLS
		if config == nil {
			config = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		opts = append(opts, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(config)))
	} else {
		opts = append(opts, otlptracegrpc.WithInsecure())
	}
	if dial := cfg.Dial; dial != nil {
		opts = append(opts, otlptracegrpc.WithDialOption(grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) { return dial(ctx, a) })))
	}
	return otlptracegrpc.NewClient(opts...), nil
}

// Metrics are those of all tracers of a process.
type Metrics struct {
	exported prometheus.Counter
	dropped  *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		exported: prometheus.NewCounter(prometheus.CounterOpts{Name: "ambit_trace_spans_exported_total", Help: "Spans that the collector has taken, of all collectors."}),
		dropped:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ambit_trace_spans_dropped_total", Help: "Spans that were lost: the queue was full (queue_full), the collector did not take them (export_failed), or they ended when nothing was sent to their collector any more (stopped)."}, []string{"reason"}),
	}
	r.MustRegister(m.exported, m.dropped)
	return m
}

// queue holds the spans that have ended until they are sent. It is bounded, and
// nobody waits for room in it.
type queue struct {
	exporter  *otlptrace.Exporter
	spans     chan sdktrace.ReadOnlySpan
	batch     int
	interval  time.Duration
	timeout   time.Duration
	log       *zap.Logger
	exported  prometheus.Counter
	dropped   *prometheus.CounterVec
	overflown prometheus.Counter
	stopped   atomic.Bool // Run is over
	failing   bool        // owned by Run
	refusing  bool        // owned by Run
}

var _ sdktrace.SpanProcessor = (*queue)(nil)

func newQueue(cfg trace.Config, e *otlptrace.Exporter, m *Metrics) *queue {
	return &queue{
		exporter: e, spans: make(chan sdktrace.ReadOnlySpan, cfg.Queue), batch: cfg.Batch, interval: cfg.Interval, timeout: cfg.Timeout, log: cfg.Log,
		exported: m.exported, dropped: m.dropped, overflown: m.dropped.WithLabelValues("queue_full"),
	}
}

// OnStart implements sdktrace.SpanProcessor.
func (q *queue) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd takes a span or drops it.
func (q *queue) OnEnd(s sdktrace.ReadOnlySpan) {
	select {
	case q.spans <- s:
	default:
		q.overflown.Inc()
	}
	if q.stopped.Load() {
		q.forget()
	}
}

// forget counts what nobody sends any more.
func (q *queue) forget() {
	for {
		select {
		case <-q.spans:
			q.dropped.WithLabelValues("stopped").Inc()
		default:
			return
		}
	}
}

// Shutdown implements sdktrace.SpanProcessor; Run ends with its context.
func (q *queue) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdktrace.SpanProcessor.
func (q *queue) ForceFlush(context.Context) error { return nil }

// grace is how long after the end of Run's context spans are still sent.
const grace = 3 * time.Second

// Run sends batches until ctx ends, and then what is left, for a moment.
func (q *queue) Run(ctx context.Context) error {
	if err := q.exporter.Start(ctx); err != nil {
		return fmt.Errorf("tracing: %w", err)
	}
	// A batch that is on its way when ctx ends is given the moment, too.
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-sending.Done():
		}
	})
	defer stop()
	for q.gather(ctx, sending) {
	}
	for batch := q.waiting(); len(batch) > 0; batch = q.waiting() {
		q.send(sending, batch)
	}
	// Whoever ends a span after this sees it, and forgets the span.
	q.stopped.Store(true)
	q.forget()
	// It has a time of its own: the connection is closed in any case.
	closing, cancelClosing := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancelClosing()
	return q.exporter.Shutdown(closing)
}

// gather waits for spans and sends one batch; false when ctx has ended.
func (q *queue) gather(ctx, sending context.Context) bool {
	var batch []sdktrace.ReadOnlySpan
	select {
	case s := <-q.spans:
		batch = append(batch, s)
	case <-ctx.Done():
		return false
	}
	timer := time.NewTimer(q.interval)
	defer timer.Stop()
	for len(batch) < q.batch {
		select {
		case s := <-q.spans:
			batch = append(batch, s)
			continue
		case <-timer.C:
		case <-ctx.Done():
		}
		break
	}
	q.send(sending, batch)
	return ctx.Err() == nil
}

// waiting takes what is there, up to a batch.
func (q *queue) waiting() (batch []sdktrace.ReadOnlySpan) {
	for len(batch) < q.batch {
		select {
		case s := <-q.spans:
			batch = append(batch, s)
		default:
			return batch
		}
	}
	return batch
}

// send hands a batch over. A change between working and failing is logged once.
func (q *queue) send(ctx context.Context, batch []sdktrace.ReadOnlySpan) {
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	err := q.exporter.ExportSpans(ctx, batch)
	lost := 0
	var refused *refusedError
	switch {
	case errors.As(err, &refused):
		lost = int(min(refused.spans, int64(len(batch))))
	case err != nil:
		lost = len(batch)
	}
	if lost > 0 {
		q.dropped.WithLabelValues("export_failed").Add(float64(lost))
	}
	q.exported.Add(float64(len(batch) - lost))
	if refusing := refused != nil; refusing != q.refusing && (refusing || err == nil) {
		if q.refusing = refusing; refusing {
			q.log.Warn("the collector refuses spans; they are dropped", zap.Error(err))
		} else {
			q.log.Info("the collector takes all spans again")
		}
	}
	if failing := err != nil && refused == nil; failing != q.failing {
		q.failing = failing
		if failing {
			q.log.Warn("spans cannot be sent to the collector; they are dropped until it answers", zap.Error(err))
		} else {
			q.log.Info("spans are sent to the collector again")
		}
	}
}
