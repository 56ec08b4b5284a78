// Package wds holds what the control plane has told of workloads, services and
// policies, and answers what the proxy asks of it: who is behind an address, where
// does a connection to it go, and what are a workload's policies.
//
// It opens nothing and connects to nothing. Workload and Service are immutable
// once stored; an update replaces them.
package wds
