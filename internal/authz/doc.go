// Package authz decides whether a connection to a workload is let in, and whether
// a request is.
//
// It takes Authorization resources (Compile), keeps them in immutable snapshots
// (Set), and gives for each workload an Evaluator that answers for one
// connection or request at a time. It is pure: no clock, no socket, no logger; it neither
// fetches policies nor closes connections.
//
//	Authorization ── Compile ──▶ Policy ── Set.With ──▶ Set ── For(workload) ──▶ Evaluator ── Decide, DecideRequest ──▶ Decision
//
// # Semantics
//
// The policies of a workload are the global ones, those of its namespace, and
// those that it lists. If a rule of a DENY policy matches, the connection is
// denied. Otherwise, if there is no ALLOW policy, it is allowed; if there are
// some, it is allowed when a rule of one of them matches. A dry run decides
// nothing: a match is reported in Decision.Audits.
//
// A rule matches when all of its clauses do; a clause when one of its matches
// does, or when it has none; a match when each of its fields does, and never
// when it has none. The values of a field are alternatives, and a not_ field
// must have no value that matches. A policy without rules matches nothing; a
// rule without clauses matches everything. Principals are compared without
// spiffe://, and a peer without an identity has none to compare. Such a peer's
// namespace is the empty string.
//
// # Requests, and who holds the tunnel
//
// A match may carry a RequestMatch (security.RequestExtension), which is one
// more of its fields. Rules about connections and about requests are evaluated
// together. Decide knows of no request: what is asked about one then holds for
// DENY policies and does not for others, so that nothing is let in that a look at
// the request might have refused. In the same way, of a header with several
// lines DENY takes the worst and ALLOW wants all.
//
// With security.TunnelPeerExtension the principals of a match are those of who
// holds the tunnel, which is not the source where a waypoint speaks for it. An
// ALLOW policy that is marked optional lets in what it matches, and is no reason to
// refuse the rest.
//
// # Where this is stricter than the published behaviour
//
// Nothing fails open:
//
//   - A policy that cannot be read (an action, a scope or a kind of match that is
//     not known, an address block or a port that is none) is not skipped. It
//     denies everything if it is a DENY policy or one of unknown action, and
//     allows nothing if it is an ALLOW policy. If it is the scope that is
//     unknown, it is global. An extension of a match whose name begins with
//     ambit-mesh.io/ says what to enforce; one that is not known cannot be read.
//   - A workload that lists a policy which is not known here lets nothing in
//     until the policy arrives, because nobody knows what it would close. So
//     that nothing is refused in passing, whoever distributes resources sends a
//     policy before the workload that lists it, and takes it away after.
//
// # Cost
//
// What a decision costs does not depend on policies of other workloads, nor
// much on how many there are for this one: rules are found through tables of
// the exact identities, service accounts, namespaces, ports and address blocks
// without which they cannot match, whichever tells them best apart. Only rules
// that have none of these in one of their clauses are tried one by one.
package authz
