// Package controlplane measures the control plane on Kubernetes with as many
// objects as a large cluster has; see README.md.
package controlplane
