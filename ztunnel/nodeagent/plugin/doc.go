// Package plugin is the node's CNI plugin, ambit-cni. A container runtime runs it
// after the primary CNI's plugins, for each pod that starts and stops. It asks the
// node agent, over the agent's socket, and waits until the agent says that the pod
// may start. The result of the plugins before it is passed on byte for byte.
//
//	runtime ──ADD──▶ primary CNI ──prevResult──▶ ambit-cni ──POST /cmdadd──▶ node agent
//
// While the agent is away, the file that it left behind (package enrolled) decides:
// pods of namespaces that were enrolled wait for the agent and are then refused in
// a way that makes the kubelet try again; all others start untouched. If the file
// cannot be believed, no pod starts but those of exempt namespaces, which are never
// asked about: the mesh's own pods run there, and bring the agent back.
//
// The plugin holds no credential and speaks to nobody but the agent.
package plugin
