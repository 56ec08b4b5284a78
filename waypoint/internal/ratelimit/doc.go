// Package ratelimit keeps the limits that a request is under. Which limits those
// are, and under which key, has been decided before (waypoint/route).
//
//	[]Ask ── local: token buckets here, all or nothing ──┬──▶ Outcome ── Headers ──▶ the answer
//	          └─ global: RateLimitService/ShouldRateLimit ┘
//
// # Local limits
//
// A bucket of Burst tokens gets one back every Unit/Requests (GCRA: all that is
// kept is the moment at which it will be full). It belongs to (policy, rule, key)
// and so outlives every change of the configuration; when the rate has changed,
// what had been used stays used and comes back at the new rate, from the next
// request on. A limit of no requests, or one without a unit, lets nothing through.
//
// Several limits of one request are taken together: if one refuses, none of them
// has been used up. All are asked, so that the answer names all of them.
//
// # Many keys
//
// A full bucket is like none and is forgotten, by Run and whenever another is
// made. No other bucket ever is: a client that invents keys cannot make the
// waypoint forget what others, or itself, have used. When there are MaxKeys
// buckets, or MaxKeysPerLimit of one limit, a key that has none shares one with
// others in the same situation (64 such buckets for each limit, by hash), at the
// same rate. So memory is bounded, known keys notice nothing, and keys that are
// new get less, never more. Verdict.Shared says so, and a metric counts it.
//
// # Global limits
//
// They are counted by a service that speaks envoy.service.ratelimit.v3. Limits of
// the same service and domain are asked for in one call, a descriptor each; the
// numbers of the limit go along as its override. The protocol has no way of
// asking without counting, so they are asked last, calls one behind the other
// until one refuses; what the earlier ones counted stays counted, while local
// tokens are given back.
//
// An answer that is not understood, says neither OK nor OVER_LIMIT, or is late is
// no answer. Then the request is let through if the limit fails open, and
// otherwise refused with 503 and not with 429: the client has not done too much,
// and the reason names the service that is away. Both are counted.
//
// # Fields
//
// Every answer to a limited request says RateLimit-Policy (all limits) and
// RateLimit (the one that has the least left), draft-ietf-httpapi-ratelimit-headers-10;
// 429 has Retry-After (RFC 9110 section 10.2.3).
package ratelimit
