// Package gather reads the flow records of many proxies at once, and when following
// also those of proxies that come later. Where proxies are and how they are reached
// is left to a Source: the namespaces of a local mesh, or the pods of a cluster.
package gather
