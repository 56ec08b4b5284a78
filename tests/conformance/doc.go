// Package conformance runs the official conformance suite of the Gateway API against the cluster that KUBECONFIG names. The
// README says how.
package conformance
