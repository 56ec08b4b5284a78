// Package proxy is the byte path of a waypoint: what clients' tunnels bring is
// told apart by protocol, each request is decided about and sent on, and the
// answer is brought back.
//
//	CONNECT (hbone) ─▶ inbound.go: who, for which service and port
//	                     ├─ CONNECT-UDP ─▶ datagrams.go: policy, backend, datagrams both ways
//	                     ├─ TCP, TLS ─▶ opaque.go: policy, backend, splice
//	                     └─ HTTP ─▶ http1/http2 server ─▶ exchange.go, for each request:
//	                           path ▸ tokens ▸ policy ▸ route ▸ answers of its own (redirect, CORS)
//	                           ▸ faults ▸ rate limits ▸ external authorization ▸ filters
//	                           ▸ backend ▸ attempts (attempt.go) ▸ response
//
// Every request ends in one record (record.go): log line, metrics, span and flow
// say the same.
package proxy
