// Package guard stands between the waypoint's messages and the services that are
// asked about them. Rate limit services, authorization services and tokens name
// fields that requests and responses are to have; whoever controls one of them
// must be able to add fields and nothing else: not end a field line, not change
// where a message ends or goes, and not speak for the connection.
//
//	name, value ── Request / Response ──▶ message.Field, or the Fault it has
package guard
