// Package hbone carries byte streams over one mutually authenticated TLS
// connection: HTTP/2 CONNECT (RFC 9113 section 8.5) and nothing else of HTTP/2.
// It is the engine of the tunnel, made for this one job because a general HTTP/2
// stack spends more on hand-offs between goroutines than on encryption.
//
// The byte path of one direction, and who runs it:
//
//	app socket ── read into a pooled buffer behind 9 free bytes ─┐  goroutine of the
//	              frame header written into those bytes          │  spliced connection
//	              sender: encrypt, one write for all records ────┘
//	                     │ (busy? appended to what its holder writes next)
//	                     ▼
//	                TLS connection, shared by all streams of one key
//	                     │
//	              read loop: decrypt, parse, find the stream ────┐  goroutine of the
//	              write to the app socket without waiting ───────┘  tunnel connection
//	                     │ (socket full? queued; a goroutine drains it and ends)
//	                     ▼
//	                app socket
//
// So an idle stream costs one parked goroutine and no buffer, a byte is copied by
// us only where two streams write at the same time, and a slow reader holds up
// nobody: what it does not take is bounded by its stream's window, which grows
// only for readers that keep up (receive.go), and by the connection's window.
//
// The package verifies nothing about peers and decides nothing: TLS comes from the
// caller's configuration, and who may connect to what from the caller's Handler.
package hbone
