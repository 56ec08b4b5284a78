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
// The API of a cluster, in place of manifests, is followed by a Platform, which package
// kubernetes makes: a program that reads manifests only does without that package and
// its libraries. The flags that fill Config are package command's.
package controlplane
