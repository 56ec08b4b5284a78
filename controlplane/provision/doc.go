// Package provision gives what a waypoint is made of: from a Gateway of class
// ambit-waypoint a ServiceAccount, a Service and a Deployment, all named after
// it, and its status from what has become of them.
//
//	Gateway ── Check ──▶ Verdict          can there be a waypoint for it, and why not
//	        ── Objects ─▶ ServiceAccount, Service, Deployment
//	        ── Status ──▶ GatewayStatus   Accepted, Programmed, addresses
//
// The same objects are applied to a cluster and run by ambit local: pods with a
// network namespace of their own that is never captured, because a waypoint
// speaks HBONE itself. A Gateway that a namespace's label stands for (graph.Graph
// has it) is provisioned like one that was written.
//
// The package is pure: who creates the objects is not its affair.
package provision
