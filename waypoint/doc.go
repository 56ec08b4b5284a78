// Package waypoint is the proxy of the services that ask for layer 7: it takes
// their clients' tunnels, decides about each request by routes and policies, and
// sends it on through tunnels of its own.
//
//	xDS ─▶ resources.go ─▶ wds.Store, frontend.Table, upstream.Set
//	:15008 ─▶ tunnels.go ─▶ internal/proxy ─▶ internal/upstream ─▶ endpoints
//
// It learns everything from the control plane, holds the certificate of its own
// identity, and knows its clients by theirs.
package waypoint
