// Package policy turns the policies that people write into the Authorization
// resources that node proxies enforce, and says in each policy's status what
// became of it.
//
// It takes AuthorizationPolicy and PeerAuthentication objects and gives, for
// each, the resource, a description of the workloads it is for (Targets), and
// conditions in the sense of GEP-713. Which workloads those are is resolved by
// the caller, who knows them; a workload lists each policy of scope
// WORKLOAD_SELECTOR that it is a target of.
//
//	AuthorizationPolicy ── Translate ──▶ Authorization + Targets + status
//	PeerAuthentications ── NewPeers ───▶ Effective(workload) = mode + policies to list
//	                                     Authorizations, Statuses
//
// A rule becomes at most two clauses of the wire format, and one more for each
// notSource that is narrowed by an address block:
//
//	sources                            one clause, one match a kind of source (OR)
//	notSources, ports, notPorts        one clause, one match (AND)
//	notSource narrowed by a block      one clause: not the peer OR not the block
//
// What cannot be enforced as written is refused as a whole, never in part: see
// docs/adr/0002-refused-policies-deny.md.
//
// The package is pure: no clock, no socket, no logger. LastTransitionTime of
// every condition is left to whoever writes the status.
package policy
