// Package traces is a collector of OpenTelemetry spans for the shop: it takes them
// over gRPC (OTLP), keeps those of the newest traces, and shows a trace as a tree
// across the services that took part.
package traces
