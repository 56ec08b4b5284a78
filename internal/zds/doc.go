// Package zds is both ends of the socket over which a node agent hands captured
// pods to the node's ztunnel (apis/zds): SOCK_SEQPACKET, one protobuf message a
// packet, a pod's network namespace beside it as a file descriptor.
//
//	ztunnel (Client)                           node agent (Server)
//	  connect, ZdsHello ─────────────────────▶
//	                    ◀──── Add+fd | Keep …  the snapshot, one by one
//	  ack, ack, …      ─────────────────────▶
//	                    ◀──── SnapshotSent     the client drops what was not named
//	                    ◀──── Add+fd | Del …   changes, as they come
//
// Requests are answered in order, one at a time. Several ztunnels may be
// connected while one succeeds another: additions go to the newest, removals to
// all; if the newest goes away, the one before it is told what it missed.
//
// A ztunnel that is a Successor hands the sockets that it listens on to the agent,
// which hands them to the next ztunnel. They are the same sockets: none of the
// connections in their queues is lost, whichever process ends in between, and none
// is refused while there is no ztunnel at all.
//
// What a captured pod is, and what a proxy does with it, is left to the callers.
package zds
