// Package graph links the objects that a source delivers into what the
// compiler asks for: which pods a service selects, which services a pod serves,
// which policies reach a pod, which node runs an identity.
//
// It takes typed Kubernetes, Gateway API and ambit-mesh.io objects as batches of
// changes and gives back the dirty set: every pod, service, endpoint slice,
// namespace and policy whose links or contents the batch may have changed. Each
// index is keyed so that the cost of one change does not grow with the mesh.
//
// The package is pure: no clock, no socket, no logger. Objects handed to it are
// never modified and must not be modified by the caller afterwards.
package graph
