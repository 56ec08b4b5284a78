// Package proxy carries the connections of captured pods. For each pod there are
// three listeners inside the pod's network namespace, and a set of connections:
//
//	:15001  what the pod opens         → tunnel, or as it is        (outbound.go)
//	:15008  tunnels from other nodes   → the pod, policy permitting (inbound.go)
//	:15006  plaintext to the pod       → the pod, policy permitting (plaintext.go)
//	:15053  the pod's DNS queries      → internal/dns               (dns.go)
//
// No other application protocol is looked into. Whom a connection may reach is decided
// by internal/authz with what internal/wds knows.
package proxy
