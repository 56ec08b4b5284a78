// Package compile turns the objects of a mesh into the resources that its
// ztunnels, waypoints and node agents are told: Address and Authorization for
// every ztunnel, Frontend and Backend for the waypoints, Pod and Namespace for the
// node agents.
//
// It takes batches of object changes and of capture reports (Input) and gives
// the resources that differ (Result). A batch costs what it touches: an edit of
// one pod compiles that pod's resources and nothing else. The outcome depends
// only on the objects and reports, never on the order of the batches that
// brought the objects.
//
// # Capture
//
// Whether a pod should be captured is read from labels; whether it is captured
// is what its node's agent reported. The two are brought together so that no
// connection fails on the way in or out:
//
//	           label on              agent: CAPTURED
//	Plain ───────────────▶ Enrolling ───────────────▶ Captured ◀─┐ label on again
//	  ▲   ◀───────────────     │                          │      │
//	  │        label off       │                 label off│      │
//	  │                        │                          ▼      │
//	  └──── Released ◀─────────┼──────────────────── Releasing ──┘
//	 agent: RELEASED           │    every ztunnel knows (Input.Released)
//
//	phase      Workload.tunnel_protocol   node.Pod.captured
//	Plain      NONE                       false
//	Enrolling  NONE                       true
//	Captured   HBONE                      true
//	Releasing  NONE                       true
//	Released   NONE                       false
//
// A pod that was captured and is still wanted stays HBONE whatever its agent
// reports later: peers must fail rather than fall back to plaintext.
//
// The package is pure: no clock, no socket, no logger.
package compile
