// Package upstream sends requests and connections to the services behind a
// waypoint: it chooses an endpoint, reaches it through a tunnel with the exact
// identity that it must have, and keeps what can be used again.
//
//	Set ── Cluster (a port of a service): endpoints, balancing, limits, health
//	           └─ Endpoint (a workload's port): load, failures, HTTP connections
//	                  └─ Dialer: tunnel streams that name the client they are for
//
// A connection to an endpoint is made for one client (its identity and address),
// because the destination's policies, log and application see that client. Tunnel
// connections are shared by all.
package upstream
