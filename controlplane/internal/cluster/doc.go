// Package cluster is what replicas of a control plane share through the Kubernetes
// API beside the mesh itself: the authority's state in a Secret, the lease of the
// leader, and the root bundle that is published to namespaces.
//
// What a leader does is its caller's; so is what the Secret holds (package ca).
package cluster
