// Package relay lets the process behind a QUIC server's UDP port be replaced while
// the former one keeps its connections.
//
// A kernel gives what comes to a port to one process; with QUIC only the connection
// id tells whose connection a datagram is of (RFC 9000, section 5.1). So each process
// has a tag of its own in the ids that it issues, the newest has the port, and it
// hands what carries the tag of another to that one:
//
//	peers ─▶ port ─▶ newest process ──┬▶ its own connections
//	                                  └▶ relay, a pair of Unix sockets ─▶ former process, its connections
//
// Answers do not take the detour: the former process still has a socket of the port.
//
// One end of each pair goes from process to process with the listening sockets (see
// package zds). In its queue waits a message with what a successor has to know: the
// tag, and the key from which resets are made that a peer believes. So peers of a
// process that was killed hear at once that their connections are gone (RFC 9000,
// section 10.3) instead of waiting for them in vain.
package relay
