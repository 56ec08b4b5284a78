// Package e2e tests Ambit on a real Kubernetes of two nodes, from outside and as a user would. The README says how to run it
// and how to write a test.
package e2e
