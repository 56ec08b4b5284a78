// Package kube feeds the compiler from the Kubernetes API. One informer per kind
// keeps what the mesh needs of each object and drops the rest as it comes in:
//
//	CustomResourceDefinitions ─▶ which kinds are there, in which version
//	informer of each kind ─ trim ─▶ pending changes, one per object ─▶ Sink.Objects
//
// The first delivery is the complete state. Later ones hold all that gathered while
// the one before was compiled and for a moment after, each object once, at its
// newest. A kind whose definition is not installed is waited for, and one whose
// definition goes is let go with all its objects; neither needs a restart. The
// standard channel of Gateway API suffices.
//
// Objects come defaulted and validated by the API server. The informers' objects
// are handed on as they are, shared and never modified.
//
// What the objects mean is the compiler's; writing to the API is done elsewhere.
package kube
