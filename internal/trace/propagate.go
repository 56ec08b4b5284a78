package trace

import (
	"strings"

	"github.com/ambit-mesh/ambit/internal/message"
)

// seen are the fields of a request that are about traces.
type seen struct {
	traceparent, b3   string
	parents, b3s      int // how many lines there are
	state             string
	states            int
	multi             b3Fields
	multiple, repeats bool // B3 in several fields; one of them twice
}

// Extract reads the context of a request: W3C's, or else B3's. What is malformed,
// or there twice, is as if it were not there; Inject takes it out.
func Extract(f message.Fields) Context {
	s := look(f)
	if s.parents == 1 {
		if c, ok := ParseTraceparent(s.traceparent); ok {
			c.verbatim = true
			s.stateOf(&c, f)
			return c
		}
	}
	if s.b3s == 1 {
		if c, ok := parseB3(s.b3); ok {
			c.verbatim = s.parents == 0 && s.states == 0
			return c
		}
	}
	if s.multiple && !s.repeats {
		if c, ok := s.multi.parse(); ok {
			c.verbatim = s.parents == 0 && s.states == 0 && s.b3s == 0
			return c
		}
	}
	return Context{}
}

// stateOf adds the tracestate, if it is well-formed.
func (s *seen) stateOf(c *Context, f message.Fields) {
	switch s.states {
	case 0:
		return
	case 1:
		c.State = s.state
	default:
		c.State, _ = f.Joined(fieldTracestate)
	}
	if !validState(c.State) {
		c.State, c.verbatim = "", false
	}
	c.State = strings.Trim(c.State, " \t,")
}

// look finds the fields in one pass.
func look(f message.Fields) (s seen) {
	for i := range f {
		v := f[i].Value
		switch f[i].Name {
		case fieldTraceparent:
			s.traceparent = v
			s.parents++
		case fieldTracestate:
			s.state = v
			s.states++
		case fieldB3:
			s.b3 = v
			s.b3s++
		case fieldB3TraceID:
			s.add(&s.multi.trace, v)
		case fieldB3SpanID:
			s.add(&s.multi.span, v)
		case fieldB3Sampled:
			s.add(&s.multi.sampled, v)
		case fieldB3Flags:
			s.add(&s.multi.flags, v)
		case fieldB3ParentSpanID:
			s.multiple = true
		}
	}
	return s
}

func (s *seen) add(dst *string, v string) {
	s.repeats = s.repeats || *dst != "" || v == ""
	s.multiple = true
	*dst = v
}

// Inject makes the fields of a request say c. W3C's are always set, and those of
// B3 only in a form that the client speaks. Fields that say it already are left as
// they are; so are all when there is no trace.
func (c Context) Inject(f *message.Fields) {
	if c.verbatim || c.muted || !c.Valid() {
		return
	}
	f.Set(fieldTraceparent, c.Traceparent())
	if c.State != "" {
		f.Set(fieldTracestate, c.State)
	} else {
		f.Del(fieldTracestate)
	}
	s := look(*f)
	if s.b3s > 0 {
		f.Set(fieldB3, c.b3())
	}
	if !s.multiple {
		return
	}
	f.Set(fieldB3TraceID, c.TraceID.String())
	f.Set(fieldB3SpanID, c.SpanID.String())
	f.Del(fieldB3ParentSpanID)
	if c.Debug {
		f.Set(fieldB3Flags, "1")
		f.Del(fieldB3Sampled) // implied
		return
	}
	f.Del(fieldB3Flags)
	f.Set(fieldB3Sampled, c.b3Sampled())
}
