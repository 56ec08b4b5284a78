// Package v1alpha1 holds the Kubernetes API of the mesh, group ambit-mesh.io:
// who may talk to whom (AuthorizationPolicy), where plaintext is let in
// (PeerAuthentication), and what a waypoint does with requests (the kinds that
// are a TrafficPolicy).
//
// AuthorizationPolicy has the shape of GEP-3779, so that a policy of that GEP is
// one of ours after its apiVersion is changed, and adds what the GEP leaves out:
// DENY and AUDIT, negation, namespaces and address blocks as sources, Services
// and namespaces as targets, and attributes of the application protocol. All
// kinds are policies in the sense of GEP-713: targetRefs, conditions, ancestors.
//
// What the validation markers and the CEL rules in this package refuse never
// reaches the mesh through a Kubernetes API server. Manifests from a directory
// pass through controlplane/compile/policy and controlplane/compile/traffic, which
// check the same.
//
// +kubebuilder:object:generate=true
// +groupName=ambit-mesh.io
package v1alpha1
