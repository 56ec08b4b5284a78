// Package sandbox makes the box that a local mesh lives in: one process that is
// pid 1 of its own pid, network, mount, host name and IPC namespaces, and of its
// own user namespace where the caller is not root. The host's network is never
// touched, and when pid 1 ends the kernel ends everything inside.
//
// Two processes depend on each other. The keeper stays outside, and pid 1 runs
// inside:
//
//	keeper ── lifeline (pipe) ──▶ pid 1      the pipe ends: pid 1 kills all, removes the state directory, ends
//	keeper ◀─────── wait ──────── pid 1      pid 1 ends: the keeper removes the state directory, ends
//
// Both hold the lock of the state directory, so a directory whose lock is free
// is a leftover of two processes killed at once; the next Start or Clean with
// its name removes it.
//
// What happens inside the box is none of this package's business.
package sandbox
