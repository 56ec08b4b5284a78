// Package sniff reads what crosses a link and says what of it can be understood
// by who listens: known plaintext, and on mesh ports whether it is TLS 1.3, or QUIC
// over UDP, and nothing else.
//
//	AF_PACKET ─▶ frame: Ethernet, IP ─┬▶ TCP: stream, in order, each direction ─▶ TLS records, known bytes
//	                                  └▶ UDP: datagram ─▶ QUIC headers, known bytes
package sniff
