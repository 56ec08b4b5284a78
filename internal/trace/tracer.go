package trace

import (
	"context"
	"time"
)

// Kind is which end of a request a span is about.
type Kind uint8

// Kinds.
const (
	Server Kind = iota
	Client
)

// Backend records spans and sends them somewhere. Package otlp has one.
type Backend interface {
	// Start begins the span that has a context, below parent, whose SpanID is zero
	// where the trace begins. It does not wait.
	Start(parent, span Context, name string, kind Kind, start time.Time) Recording
	// Run sends what was recorded until ctx ends, and then the rest.
	Run(ctx context.Context) error
}

// Recording is a span at a Backend. None of its methods waits.
type Recording interface {
	SetName(name string)
	Event(at time.Time, name string)
	End(at time.Time, a *Attributes)
}

// Tracer makes spans. A nil Tracer, and one without a backend, makes none.
type Tracer struct{ backend Backend }

// NewTracer gives a tracer that records at a backend, which may be nil.
func NewTracer(b Backend) *Tracer { return &Tracer{backend: b} }

// Run sends spans until ctx ends, and then those that wait.
func (t *Tracer) Run(ctx context.Context) error {
	if !t.Enabled() {
		<-ctx.Done()
		return nil
	}
	return t.backend.Run(ctx)
}

// Enabled reports whether spans are made at all.
func (t *Tracer) Enabled() bool { return t != nil && t.backend != nil }

// Start begins a span below parent, which Decide has decided about. It is nil
// where none is to be made; all that a nil Span's methods do is nothing.
func (t *Tracer) Start(parent Context, name string, kind Kind, start time.Time) *Span {
	if parent.Decision != Sampled || parent.muted || !t.Enabled() {
		return nil
	}
	s := &Span{context: parent.Child(), Attributes: Attributes{Kind: kind}}
	if parent.root {
		parent.SpanID = SpanID{} // it names no span
	}
	s.recording = t.backend.Start(parent, s.context, name, kind, start)
	return s
}

// Span is a span that is being made. Its owner sets Attributes and calls End.
type Span struct {
	Attributes Attributes
	context    Context
	recording  Recording
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
		s.recording.SetName(name)
	}
}

// Event notes something that happened at a time within the span.
func (s *Span) Event(at time.Time, name string) {
	if s != nil {
		s.recording.Event(at, name)
	}
}

// End hands the span over. It does not wait.
func (s *Span) End(at time.Time) {
	if s != nil {
		s.recording.End(at, &s.Attributes)
	}
}
