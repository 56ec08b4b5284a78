// Package attr names the attributes that spans have by themselves, so that a
// configuration can refer to them. It is apart so that packages which only read
// configurations do without the rest of package trace.
package attr

import "slices"

// keys are those of the OpenTelemetry semantic conventions, and our own, in order.
// Package otlp writes them, and its tests hold this list to what it writes.
var keys = []string{
	"ambit.backend", "ambit.destination.identity", "ambit.destination.workload", "ambit.policy", "ambit.policy.rule", "ambit.retries",
	"ambit.route", "ambit.rule", "ambit.source.identity", "ambit.source.workload", "ambit.waypoint",
	"client.address", "error.type",
	"http.request.body.size", "http.request.method", "http.request.method_original", "http.request.resend_count",
	"http.response.body.size", "http.response.status_code",
	"network.peer.address", "network.peer.port", "network.protocol.name", "network.protocol.version",
	"rpc.grpc.status_code", "rpc.method", "rpc.service", "rpc.system",
	"server.address", "server.port", "url.path", "url.scheme", "user_agent.original",
}

// Keys gives all keys, in order.
func Keys() []string { return slices.Clone(keys) }

// Known reports whether spans may have an attribute.
func Known(key string) bool {
	_, ok := slices.BinarySearch(keys, key)
	return ok
}
