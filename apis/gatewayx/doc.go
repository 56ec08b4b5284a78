// Package gatewayx has the kinds of Gateway API's experimental group,
// gateway.networking.x-k8s.io, that the mesh reads and that the version of the module
// which it is built with, v1.6.3, does not have yet. They have the names and the JSON of
// v1.7.0, so that each goes when the module has it. Their definitions (CRDs) are those
// of Gateway API's experimental channel; they are read where a cluster has them.
//
// +kubebuilder:object:generate=true
// +groupName=gateway.networking.x-k8s.io
package gatewayx
