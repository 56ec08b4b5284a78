// Package workload decides which pods there should be: it turns Deployments,
// StatefulSets and bare Pods, beside the pods that exist, into pods to create
// and pods to delete, and pods into nodes.
//
// It is pure. What a controller of Kubernetes would do over several objects is
// done in one step here, for there is nobody to share the objects with.
package workload
