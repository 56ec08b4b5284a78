// Package capture redirects the TCP connections, UDP datagrams and DNS queries of one
// pod to its node's ztunnel, and takes that back. Everything happens inside the pod's network
// namespace, over netlink.
//
//	outbound   app ─SYN→ nat output     → redirect 15001
//	dns        app ─to port 53→ nat output → redirect 15053   (UDP and TCP)
//	inbound    eth0 ─SYN→ nat prerouting → redirect 15006   (15008 passes)
//	delivery   ztunnel, with the client's address as its source
//	             ─SYN→ lo → mangle prerouting: connection mark 0x111
//	           app ─reply→ mangle output: packet mark 0x111
//	             → ip rule → table 100 → lo → ztunnel's socket
//
// Datagrams keep their addresses, so that ztunnel sees where each was going:
//
//	outbound   app ─→ mangle output: packet mark 0x111 → ip rule → table 100 → lo
//	             → mangle prerouting → tproxy 15001
//	inbound    eth0 ─→ mangle prerouting → tproxy 15006   (15008 and answers pass)
//	delivery   as above; with mark 0x53a instead, the answers leave as they are
//
// Only the first packet of a connection is ever redirected: connections that
// stood before go on as they were. Datagrams have no first packet that could be
// told: they move in and out at once, except for answers that the kernel knows as
// such. Left alone are loopback addresses, what a pod
// sends to itself, what carries ztunnel's mark, and the node's health probes.
//
// Release takes two steps. StopNew takes the redirects away and keeps the rest,
// for connections that are redirected live by the translation that the chains
// keep up. When Connections says that none is left, Release removes everything.
// What Capture adds it can tell from what others added: one nftables table of its
// own, and a routing protocol number on its rules and routes. Nothing else is
// touched, so there is nothing to restore.
//
// Which pods are captured is decided elsewhere.
package capture
