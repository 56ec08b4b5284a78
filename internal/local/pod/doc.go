// Package pod runs one pod as processes of this machine: namespaces with an
// address, files and a host name of their own, then init containers, then
// containers with probes and restarts, and at the end nothing that is left.
//
//	prepare ─▶ capture ─▶ init containers ─▶ containers ⟲ ─▶ SIGTERM ─▶ SIGKILL ─▶ dismantle
//
// Every step that can fail is tried again with backoff, and the pod's status
// says what it waits for. Which pods there are is decided elsewhere.
package pod
