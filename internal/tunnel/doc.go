// Package tunnel is what tunnels of both transports have in common, for the proxies
// that use either: HTTP/2 over TCP (internal/hbone) and HTTP/3 over QUIC
// (internal/hbone3).
//
//	Ask      a CONNECT that waits for a decision, however it came
//	Key      tells connections to peers apart, and whom to expect there
//	Packets  the datagrams of one session: HTTP datagrams, or capsules
//	Pools    opens sessions over QUIC, or else over TCP
//	Reach    remembers where QUIC does not get through
package tunnel
