// Package hbonetest forges what a hostile or careless peer of a tunnel may say:
// HTTP/2 frame by frame over TLS, HTTP/3 over QUIC, the handshakes that have to be refused and the
// floods that have to be ended, each with the answer that it must get. The tests
// of the engine use it, and those of a whole ztunnel.
package hbonetest
