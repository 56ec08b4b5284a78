// Package wire builds the network of a local mesh inside its sandbox:
//
//	sandbox's own netns: control plane        br0 172.18.0.1/24 fd00:18::1/64
//	        │ veth                              │ veth
//	node n1: eth0 172.18.0.11 fd00:18::11     node n2: eth0 172.18.0.12 fd00:18::12
//	        │ one veth a pod                    │ 169.254.1.1 and fe80::1 on each
//	pod: eth0 10.244.1.2/32 fd00:10:244:1::2  pod: eth0 10.244.2.2/32 fd00:10:244:2::2
//
// Nodes route: a pod's default route points at its node, a node knows its own
// pods one by one and other nodes' pods by their block. What goes between nodes
// crosses br0 and nothing else does, so br0 is the place to look at the wire.
// There is no way out: an address outside is answered with "unreachable".
//
// Everything is done by netlink. Names, virtual service addresses and capture
// are left to others.
package wire
