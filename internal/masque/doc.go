// Package masque reads and writes what UDP proxying over HTTP (RFC 9298) puts
// around a datagram: the path that names the target, the payload of an HTTP
// datagram (RFC 9297), and capsules, in which datagrams go through a stream.
//
//	payload    context ID (varint), then: 0  one UDP payload
//	                                      2  several, each behind its length (varint)
//	capsule    type 0 (varint), length (varint), payload
//
// Context 2 is ours (BatchField agrees on it), and saves most of the cost of small
// datagrams: one packet of the tunnel carries many of them.
//
// It is pure: transports are those of others.
package masque
