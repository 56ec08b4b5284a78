// Package trace takes part in distributed traces: it reads who a request belongs
// to from its fields (W3C Trace Context, and B3 in its two forms), decides whether
// to record it, passes it on, and sends spans to an OpenTelemetry collector.
//
//	Extract(fields) ─▶ Context ─▶ Tracer.Decide ─▶ Context ─▶ Tracer.Start ─▶ *Span, nil if not sampled
//	                                                 │                          │ Attributes, End
//	                                                 ▼                          ▼
//	                              Context.Inject(fields of what is sent on)   Backend (otlp)
//
// Nothing that is not sampled allocates. What a span says follows the OpenTelemetry conventions for HTTP and RPC; what is
// ours alone begins with ambit.
package trace
