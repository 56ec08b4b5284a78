// Package nodeagent is the privileged half of the node: it captures pods for the
// node's ztunnel and releases them, without restarting either.
//
//	control plane ──delta ADS: node.Pod, node.Namespace──▶ ┐
//	CNI plugin ────POST /cmdadd, /cmddel─────────────────▶ ├ pods ──netlink──▶ rules in the pod's netns
//	ztunnel ◀──────ZDS: netns handed over, acknowledged──▶ ┘   └──NodeService.Report──▶ control plane
//
// A pod is captured when the control plane says so, its namespace is known and a
// ztunnel has opened listeners in it; the control plane then tells the pod's peers
// to use the tunnel. Without the control plane everything stays as it is, and a
// pod of a namespace that was enrolled when it was last heard does not start. On
// shutdown captured pods stay captured: the next run takes them up again.
//
// On a Kubernetes node it also installs the CNI plugin (packages plugin, install)
// and keeps it installed, finds pods that run already (package sandbox), and lets
// the kubelet's probes through (capture.Host).
//
// It never talks to the Kubernetes API.
package nodeagent
