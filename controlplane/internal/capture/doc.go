// Package capture keeps the capture state of pods in the pods themselves, as the
// condition ambit-mesh.io/Captured (compile.ConditionCaptured), for control planes
// of several replicas.
//
//	node agent's report ─▶ Report: what does it make of the condition? (pure) ─▶ patch of the pod's status
//	                                                                           └▶ seen by the own compiler, distributed ─▶ acknowledged
//	peers know that there is no tunnel ─▶ Release ─▶ condition says Releasing ─▶ every replica tells the agent to let go
//
// It decides on the pod as the API server has it and writes under its resource
// version, so that replicas that write at the same time do not undo each other.
// What the condition means is package compile's.
package capture
