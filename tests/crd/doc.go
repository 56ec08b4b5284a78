// Package crd holds no code; its tests put objects through the validation of
// the Kubernetes API server with the CRDs in manifests/crds. See README.md.
package crd
