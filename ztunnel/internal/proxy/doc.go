// Package proxy carries the connections of captured pods. For each pod there are
// three listeners inside the pod's network namespace, and a set of connections:
//
//	:15001  what the pod opens         → tunnel, or as it is        (outbound.go)
//	:15008  tunnels from other nodes   → the pod, policy permitting (inbound.go)
//	:15006  plaintext to the pod       → the pod, policy permitting (plaintext.go)
//	:15053  the pod's DNS queries      → internal/dns               (dns.go)
//
// Datagrams come to the same ports, over UDP, and are told apart by their two
// addresses: each such flow is a session, which a tunnel carries by CONNECT-UDP
// (udp.go, udpout.go, udpin.go). UDP 15008 is for tunnels over QUIC (quic.go).
//
// No other application protocol is looked into. Whom a connection may reach is decided
// by internal/authz with what internal/wds knows.
package proxy
