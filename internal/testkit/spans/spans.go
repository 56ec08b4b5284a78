// Package spans reads what tracers export, for the collectors of tests.
package spans

import (
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// Span is a span as a collector gets it.
type Span struct {
	Service string // service.name of its resource
	*tracepb.Span
}

// Of gives the spans of an export, in their order.
func Of(req *collectorpb.ExportTraceServiceRequest) (all []Span) {
	for _, r := range req.GetResourceSpans() {
		service := text(r.GetResource().GetAttributes(), "service.name")
		for _, scope := range r.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				all = append(all, Span{service, s})
			}
		}
	}
	return all
}

// Text gives an attribute of the span that is a string; "" for none.
func (s Span) Text(key string) string { return text(s.GetAttributes(), key) }

func text(attributes []*commonpb.KeyValue, key string) string {
	for _, a := range attributes {
		if a.GetKey() == key {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}
