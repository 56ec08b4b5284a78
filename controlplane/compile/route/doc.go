// Package route turns the routes that are parts of one Service into what its
// waypoint is told: for each port the routes for every client (producer routes,
// of the Service's namespace), those for the clients of one namespace (consumer
// routes, of that namespace), and what applies without a route. It says in each
// route's status what became of it.
//
//	Service + routes + policies ── Translate ──▶ ports, JWT providers
//	                                             a status per parentRef, findings
//
// The semantics are those of GAMMA (GEP-1294, GEP-1324). Where these leave a
// choice, it is made here so that nobody gets more than the Service's owner
// gives:
//
//   - The kind of the routes of a port is that of the producer routes, if there
//     are any. A consumer route never changes how others are treated: it may not
//     take a port down to layer 4 of which the owner has not said that it is one.
//   - What cannot be carried out is in the output with its reason, and is
//     answered with an error for its share of the requests; it is never skipped.
//   - Policies of the Service that keep requests out (RateLimitPolicy,
//     ExternalAuthorizationPolicy) hold beside those of a route. The others are
//     inherited by rules that have none of their own (GEP-713).
//
// What has become of a route is kept, with all that was asked for it, in a Cache,
// and used again as long as the answers are the same.
//
// Matching, with its order of precedence, is left to the waypoint.
//
// The package is pure: no clock, no socket, no logger. LastTransitionTime of
// every condition is left to whoever writes the status.
package route
