// Package pods brings each pod of the node to the state that it should be in. It
// joins three sources: the CNI plugin, which knows a pod's network namespace; the
// control plane, which says whether the pod is enrolled; and ztunnel, which says
// that it has opened the pod's listeners.
//
//	released ──hand to ztunnel, await its answer──▶ rules ──▶ captured
//	   ▲                                                          │ no new redirects
//	   └──remove rules── no connection left, or bound passed ── draining
//
// Rules come after ztunnel's listeners, so that a running pod has no moment in
// which its connections are refused; they go after its last connection.
//
// Each pod has a goroutine that decides (package-level function decide, pure) and
// acts, again and again: on news, on failure with backoff, and regularly, so that
// damaged rules are mended and pods that vanished are noticed. Nothing is ever
// released because somebody is away: only the control plane's word does that.
package pods
