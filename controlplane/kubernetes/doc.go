// Package kubernetes has a control plane follow the Kubernetes API: where its objects
// come from, how callers are known, and what it writes.
//
//	API server ─ source/kube ─▶ engine ─▶ capture.Writer, and of the leader: status,
//	                                      waypoints, taints, root bundle, webhook roots
//	   TokenReview ─▶ nodes.Reviewer        Secret ◀─▶ ca.Authority
//
// It is apart from package controlplane, which knows it as a Platform, so that a
// program that reads files does not contain the clients of the API.
package kubernetes
