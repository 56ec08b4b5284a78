// Package dns answers the DNS queries of one captured pod, over UDP and TCP. What
// the mesh knows is answered from what the control plane told; everything else goes
// to the resolver that the pod itself asked, so that without a control plane, or
// for names of others, DNS is as it was.
//
//	query ─▶ Registry: services, endpoints, pods, SRV, PTR, hosts outside ─▶ answer
//	            │ not ours
//	            ▼
//	         cache ─▶ the pod's resolver, else others that it has asked ─▶ answer
//	                     a CNAME chain that leads into the mesh ends there
//
// It is the one application protocol that ztunnel reads. Nothing here opens a
// port of the host, and no answer of one pod is given to another.
package dns
