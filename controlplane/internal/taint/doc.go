// Package taint keeps pods off a fresh node until its node agent is there.
//
//	node made after the mesh, agent never heard of ─▶ leader: taint, NoSchedule
//	first report of its agent                      ─▶ whoever gets it: taint off, and noted on the node
//
// Nodes that were there before the mesh are never tainted, nor is one whose agent
// has reported once: what runs there goes on, and the CNI plugin answers for what
// starts. What the note says outlives replicas and leaders.
package taint
