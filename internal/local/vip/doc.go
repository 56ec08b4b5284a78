// Package vip makes the virtual addresses of Services work on a node, with one
// nftables table in the node's network namespace:
//
//	prerouting, output (nat)  proto . address . port ─▶ chain of the service port
//	                              chain: numgen or jhash ─▶ endpoint ─▶ dnat
//	                              no endpoints, or no such port ─▶ reject
//	postrouting (nat)         a pod that met itself ─▶ masquerade
//
// The table is replaced whole in one transaction, so that a packet sees the old
// state or the new one. Connections that stand keep their endpoint.
package vip
