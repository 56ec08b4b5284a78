// Package security is the contract of policies as proxies are told of them.
package security

// OriginExtension is the name of the extension that holds an Origin.
const OriginExtension = "ambit-mesh.io/origin"

// Names of the extensions of a Match that hold a RequestMatch and a TunnelPeer.
const (
	RequestExtension    = "ambit-mesh.io/request"
	TunnelPeerExtension = "ambit-mesh.io/tunnel-peer"
)
