// Package route decides what a waypoint does with a request: it compiles the
// routes of a frontend (Compile), finds the rule for a request (Frontend.Match),
// says why it was that one (Frontend.Explain), and carries out what rules ask for
// as far as that is a matter of values: filters, backends by weight, sessions,
// faults, the keys of rate limits.
//
//	waypoint.Frontend ── Compile ──▶ Frontend ── Match(Client, port, Request) ──▶ Decision{Rule, Prefix}
//	                        │                                                        │
//	                     Problems                    Filters, Assign, Faults, RateLimits of the Rule
//
// It is pure: no socket, clock, logger or randomness; times and random numbers
// are given. It neither forwards nor counts nor authorizes.
//
// # Which table
//
// The routes of the client's namespace (consumer routes) replace those of the
// service's (producer routes); where neither exists the port's fallback applies
// (GEP-1294, "Route types"). Within a table a request that no rule matches is
// refused, never sent to the service's own endpoints.
//
// # Which rule
//
// Of all matches of all routes of a table the one that comes first wins, in the
// order of the Gateway API: the path (below), for gRPC the service and then the
// method, a method match, the number of header matches, the number of query
// parameter matches, the oldest route, the route first by "namespace/name", the
// first rule, the first match.
//
// Paths come in the order exact, regular expression (the longer pattern first),
// prefix (the longer first). The specification leaves the place of regular
// expressions open. They come before prefixes because a rule without a path is
// the prefix "/": behind prefixes an expression would be dead as soon as any
// rule catches the rest. Of a gRPC service or method an exact name comes before
// an expression, the longer expression first, before none.
//
// Prefixes are of path segments: /v2 is a prefix of /v2, /v2/ and /v2/x, not of
// /v2example. "/" matches all, "*" of OPTIONS included. Names of headers have no
// case; several lines with a name are one value, joined by commas, cookies by
// semicolons; host, upgrade and content-length are what the codec has made of
// them. Of several query parameters with a name the first counts, decoded. Regular
// expressions are RE2 and match the whole value. Of several conditions on one name
// the first counts (HTTPHeaderMatch).
//
// A table is indexed by path, and for each path by what its matches compare for
// equality, so that a request costs the same among ten rules and among ten
// thousand. Only expressions that begin alike are tried one by one.
//
// # What requests must look like
//
// Paths are matched as NormalizePath gives them; whoever calls Match has called
// it, and forwards what it gave, so that policies, routes and backends see one
// path. Paths in routes are normalized the same way when they are compiled.
//
// # What cannot be carried out
//
// Nothing fails open. A rule of which some part cannot be compiled is Invalid:
// it keeps its place and its matches, a condition that cannot be read being taken
// as met, and every request that it matches is answered with 500. A backend that
// cannot be used is answered with 500 for its own share.
package route
