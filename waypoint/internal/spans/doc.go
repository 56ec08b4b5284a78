// Package spans sends the spans of services that have a collector of their own
// (GEP-4768), through the mesh, or say another service.name to the waypoint's.
//
//	frontend.Table ── Use(service, Telemetry) ──▶ Set ──▶ Collector ── Tracer ──▶ requests
//	                                               │          │
//	                                              Run      otlp queue ── Export ──▶ Caller
//
// A Collector runs while a service refers to it and for a moment longer, so that
// requests under way can end their spans. All services that say the same share one.
// How spans are kept, batched and lost is package otlp's affair; what is sampled is
// that of package trace and of whoever serves requests.
package spans
