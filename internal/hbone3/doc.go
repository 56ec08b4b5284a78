// Package hbone3 is the tunnel over QUIC: HTTP/3 with CONNECT for byte streams
// (RFC 9114 section 4.4) and CONNECT-UDP for datagrams (RFC 9298), as an
// alternative to the HTTP/2 of internal/hbone. Requests, answers and errors are of
// that package's types, so that who uses a tunnel need not care which it is.
//
// QUIC and HTTP/3 are the library's. What this package adds is the life of a
// connection (one for each key, shared, drained, closed when idle), bounds, and the
// mapping of errors. As internal/hbone it verifies nothing about peers and decides
// nothing: TLS comes from the caller's configuration, and who may connect to what
// from the caller's handler.
package hbone3
