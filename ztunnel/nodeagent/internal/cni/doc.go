// Package cni answers the node's CNI plugin: HTTP on a Unix socket, so that a
// plugin needs nothing but a socket and JSON.
//
//	POST /cmdadd {"netns": "/run/netns/x", "podName": …, "podNamespace": …, "podUID": …, "ips": [...]}
//	POST /cmddel {"podUID": …, "netns": …}
//	POST /cmdcheck {"podUID": …}
//	POST /status
//	POST /uninstall
//
// 200 with an empty object says that the pod may start (or that it is forgotten);
// any other status carries {"error": …}. An addition is answered when the pod is
// captured, or known to be left alone. Requests are checked here; what becomes of
// them is decided by the Handler.
package cni
