// Package controlplane tells ztunnels and node agents what their mesh is: it
// follows manifests, compiles them, distributes the outcome over delta ADS, and
// certifies the workloads of a node to that node.
//
//	manifests ─ source ─▶ engine ─ compile.Compiler ─▶ xds.Server ─▶ ztunnels, node agents
//	                        ▲  ▲                            │
//	   node agents' reports ┘  └── releases, once acknowledged
//	   CSR ─▶ ca.Service ─▶ does the node run it? (the same Compiler)
//
// One goroutine, the engine's, changes the mesh; everything else reads. The set
// of captured pods is on disk before peers hear of it, so that a successor
// changes nobody's traffic. Nothing is served before the first complete state.
//
// The flags that fill Config are cmd/controlplane's.
package controlplane
