// Package ca is the mesh's certificate authority: it answers CSRs of nodes with
// short-lived certificates for the workloads that run on them, and keeps its own
// serving certificate fresh.
//
// A request passes these gates, each of which refuses by a reason that appears
// in the answer, the audit log and a metric:
//
//	node credential → rate of the node → identity asked for: well formed, our
//	trust domain → does that node run such a live pod (Authorizer) → CSR: parsed,
//	self-signed by its own P-256 key, asks for that identity or for nothing
//
// The certificate carries exactly the granted SPIFFE ID; nothing else of the CSR
// but its public key is used.
//
// The root and the issuing certificate are either made here and kept in one
// private file, or read from files that an operator plugged in. A root made here
// is rotated in three phases that survive a restart:
//
//	steady       issue from A, publish A
//	introducing  issue from A, publish A+B, until every holder of a certificate has renewed and so knows B
//	retiring     issue from B, publish B+A, until the last certificate of A has expired; then steady with B
//
// Which pods run where is the caller's knowledge; so is who calls (package nodes).
package ca
