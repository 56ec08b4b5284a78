// Package ztunnel is the node's layer-4 proxy. It learns from the node agent which
// pods of the node are captured (ZDS), from the control plane who and where
// everybody is (delta ADS) and who its own pods are (certificates), and carries
// the pods' connections through mutually authenticated tunnels.
//
//	node agent ── ZDS: pod, netns ──▶ pods ──▶ proxy.Pod, one for each pod
//	control plane ── delta ADS ─────▶ state.Store ──┘   │
//	authority ── certificates ──────▶ certs.Manager ────┘
//
// It knows nothing of Kubernetes and of application protocols.
package ztunnel
