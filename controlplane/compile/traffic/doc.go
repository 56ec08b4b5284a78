// Package traffic turns the policies about requests (RetryPolicy,
// RateLimitPolicy, LoadBalancingPolicy and the others of their kind) into the
// form that a waypoint is told, and says what is wrong with them.
//
// It knows how to carry out one policy, which of several policies decides, and
// how a reference to a Service becomes one that requests can be sent to. Which
// rules of which routes inherit a policy is told by package route.
//
// Policies are merged by GEP-713: of those of one kind on the very same target
// the oldest decides, then the one whose name comes first; the more specific
// target wins whole. A policy that keeps requests out (RateLimitPolicy,
// ExternalAuthorizationPolicy, JWTAuthentication) and is invalid keeps out
// everything that it is about; the others have no effect then.
//
// The package is pure: no clock, no socket, no logger.
package traffic
