// Package explain says what would become of a request: who takes it where, which
// route and policies decide, and why.
//
//	/config_dump of the control plane ── Read ──▶ State
//	State + Query ── Explain ──▶ Report ── String ──▶ text
//
// It asks the code that decides in the proxies: where a connection goes
// (internal/wds), which rule matches (waypoint/route), what policies say
// (internal/authz). It sends nothing, so that what depends on the moment is left
// out: tokens and rate limits that are used up, endpoints that are ejected, answers
// of external authorization.
package explain
