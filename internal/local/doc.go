// Package local runs a whole mesh on one Linux machine: network namespaces as
// nodes and pods, processes as containers, in one sandbox that needs no root, no
// image and no daemon.
//
//	ambit local up (keeper) ── sandbox ── supervisor (pid 1)
//	                                        ├─ wire: bridge, nodes, pod links     ├─ controlplane
//	                                        ├─ vip: service addresses on nodes    ├─ n1: nodeagent, ztunnel, pods
//	                                        ├─ dns: service names                 └─ n2: nodeagent, ztunnel, pods
//	                                        └─ overlay: pods, addresses, endpoints as manifests for the control plane
//
// The supervisor reads a directory of manifests, runs what they say, follows
// their edits, and answers the ambit local commands. It does what kubelet,
// kube-proxy, the cluster's DNS and the workload controllers do in a cluster, as
// far as one machine needs it. The mesh itself is the same processes as in a
// cluster.
//
// It is no boundary against the programs that it runs: they run as the user and
// see the user's files.
package local
