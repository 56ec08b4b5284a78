// Package revocation knows which certificates have been revoked before their end, from
// the lists of their authorities (RFC 5280 section 5).
//
//	control plane ─ lists ─▶ Checker.Set ─▶ Check, at each handshake
//	                                    └─▶ Watch: what is connected already is cut
//
// A list that is past its next update stays in force, because certificates that it
// names are no better for that; it is told of by the log and a metric.
package revocation
