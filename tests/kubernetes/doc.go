// Package kubernetes holds tests of the control plane against a real Kubernetes API
// server; see README.md.
package kubernetes
