package trace

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
)

// TraceID names a trace. Zero is none.
type TraceID [16]byte

// IsZero reports whether there is no trace.
func (t TraceID) IsZero() bool { return t == TraceID{} }

// String gives 32 hexadecimal digits.
func (t TraceID) String() string { return hex.EncodeToString(t[:]) }

// SpanID names a span of a trace. Zero is none.
type SpanID [8]byte

// IsZero reports whether there is no span.
func (s SpanID) IsZero() bool { return s == SpanID{} }

// String gives 16 hexadecimal digits.
func (s SpanID) String() string { return hex.EncodeToString(s[:]) }

// Decision is whether a trace is recorded.
type Decision uint8

// Decisions.
const (
	// Undecided leaves it to whoever is asked next.
	Undecided Decision = iota
	NotSampled
	Sampled
)

// Context is a place in a trace, as it travels between processes. The zero
// Context is none. It is a value and can be copied.
type Context struct {
	TraceID TraceID
	// SpanID is the span that what follows is a child of.
	SpanID SpanID
	// State is the tracestate of other vendors, W3C Trace Context section 3.3.
	State    string
	Decision Decision
	// Debug is the debug flag of B3, which implies Sampled.
	Debug bool
	// random is the flag of W3C Trace Context level 2 section 3.2.2.5.2.
	random bool
	// verbatim says that the fields that it was extracted from say exactly this.
	verbatim bool
	// muted says that no spans are to be made, whatever the decision.
	muted bool
	// root says that SpanID names no span yet: the trace begins here.
	root bool
}

// Valid reports whether there is a trace to be part of.
func (c Context) Valid() bool { return !c.TraceID.IsZero() && !c.SpanID.IsZero() }

// Sampling says which traces are recorded that nobody has decided about.
type Sampling struct {
	// Millionths of the traces; 1,000,000 is all.
	Millionths uint32
	// Disabled makes no spans, not even for traces that others record. Contexts
	// are passed on untouched.
	Disabled bool
	// Parent is what becomes of the decisions of others.
	Parent Parent
}

// Parent is what becomes of the decision that a request brings. The zero value lets
// it stand.
type Parent struct {
	// Ignored: the decision is not looked at, nor is the debug flag, and Sampling
	// decides. The trace stays what it is.
	Ignored bool
	// Limited makes spans in a share of the traces alone that others have sampled,
	// Millionths. The contexts of the rest are passed on untouched.
	Limited    bool
	Millionths uint32
}

// One is all traces, in the unit of Sampling.
const One = 1_000_000

// Decide makes a trace of a context that is none, and a decision where there is
// none: that of whoever began the trace stands; the rest is decided by the trace's
// id, so that all who use the same share decide alike. What Sampling says of parents
// comes before that.
func Decide(parent Context, s Sampling) Context {
	if s.Disabled {
		parent.muted = true
		return parent
	}
	came := parent
	if s.Parent.Ignored {
		parent.Decision, parent.Debug = Undecided, false
	}
	if parent.TraceID.IsZero() {
		parent.TraceID, parent.SpanID, parent.random = newTraceID(), newSpanID(), true
		parent.root, parent.verbatim = true, false
	}
	if parent.Decision == Sampled && s.Parent.Limited && !samples(parent.TraceID, s.Parent.Millionths) {
		came.muted = true
		return came
	}
	if parent.Decision == Undecided {
		parent.verbatim = false
		parent.Decision = NotSampled
		if samples(parent.TraceID, s.Millionths) {
			parent.Decision = Sampled
		}
	}
	return parent
}

// samples compares the 56 bits of the id that are random (W3C Trace Context level
// 2, section 3.2.2.3) with a threshold, as OpenTelemetry's consistent probability
// sampling does.
func samples(id TraceID, millionths uint32) bool {
	if millionths >= One {
		return true
	}
	const bits = 1 << 56
	r := binary.BigEndian.Uint64(id[8:]) & (bits - 1)
	// Rounded up, so that 0 samples nothing.
	threshold := bits - uint64(millionths)*(bits/One)
	return r >= threshold
}

func newTraceID() (id TraceID) {
	for id.IsZero() {
		binary.BigEndian.PutUint64(id[:8], rand.Uint64())
		binary.BigEndian.PutUint64(id[8:], rand.Uint64())
	}
	return id
}

func newSpanID() (id SpanID) {
	for id.IsZero() {
		binary.BigEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}

// Begin gives the context of a trace that begins here and is not recorded. It
// serves to tell the records of one connection or request by.
func Begin() Context {
	return Context{TraceID: newTraceID(), SpanID: newSpanID(), Decision: NotSampled, root: true}
}

// Child gives the context of a new span below c.
func (c Context) Child() Context {
	c.SpanID, c.verbatim, c.root = newSpanID(), false, false
	return c
}
