// Package otlp records the spans of package trace with the OpenTelemetry SDK and
// sends them to a collector, over OTLP with gRPC. It is apart so that programs which
// only pass contexts on do without the SDK.
//
// A request never waits for the collector: spans that have ended are put into a
// bounded queue, and what does not fit, or is not taken, is counted and dropped.
package otlp
