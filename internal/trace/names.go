package trace

import "slices"

// AttributeKeys are the attributes that spans have, by the names of OpenTelemetry's semantic
// conventions and those of our own, sorted. A span has those of them that are known.
func AttributeKeys() []string {
	return []string{
		"ambit.backend", "ambit.destination.identity", "ambit.destination.workload", "ambit.policy", "ambit.policy.rule", "ambit.retries",
		"ambit.route", "ambit.rule", "ambit.source.identity", "ambit.source.workload", "ambit.waypoint",
		"client.address", "error.type", "http.request.body.size", "http.request.method", "http.request.method_original",
		"http.request.resend_count", "http.response.body.size", "http.response.status_code", "network.peer.address", "network.peer.port",
		"network.protocol.name", "network.protocol.version", "rpc.grpc.status_code", "rpc.method", "rpc.service", "rpc.system",
		"server.address", "server.port", "url.path", "url.scheme", "user_agent.original",
	}
}

// Secret says whether a field of a request, in lower case, holds credentials, which do not
// belong into spans.
func Secret(field string) bool {
	return slices.Contains([]string{"authorization", "proxy-authorization", "cookie", "set-cookie"}, field)
}
