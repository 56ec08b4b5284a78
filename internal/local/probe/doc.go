// Package probe asks a container how it is, as a kubelet does: over HTTP, TCP or
// gRPC from the pod's node, or by a program inside the pod. Probes come from a
// link-local address that capture leaves alone.
package probe
