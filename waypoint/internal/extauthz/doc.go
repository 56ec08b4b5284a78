// Package extauthz asks a service whether a request may pass.
//
//	Service, Input ── Check ──▶ gRPC: envoy.service.auth.v3.Authorization/Check ──▶ Outcome
//	                        └─▶ HTTP: a request of the same method and path ────┘
//
// Who asks, when, and what becomes of the Outcome is up to the caller; how to
// reach the service too (Caller, Asker).
//
// # Never open by accident
//
// A request passes when the service says so in so many words. With gRPC that is
// status OK, or an ok_response without a status; an answer with neither decides
// nothing, and one that says both yes and no says no. With HTTP it is 200 and no
// other status (Gateway API, ExternalAuth); 204 and the like refuse with 403, since
// passed on they would look like success.
//
// A service that cannot be asked, is late, answers gibberish, says error_response
// or answers 5xx has not decided. Then the request passes if the Service fails
// open, and is refused otherwise: with the answer if there is one, or with 503,
// because nobody has said that the client may not. Both are counted.
//
// # Bodies
//
// With MaxBodyBytes the body is read before the service is asked, sent along, and
// read again by whoever the request goes to. A body that is longer is refused with
// 413 and a reason, as soon as that is known. A client that waits for an answer
// before it ends its body (a bidirectional stream) waits until its request times
// out. The bodies of tunnels (CONNECT, upgrades) are not sent.
//
// # What the service may change
//
// It may set, append and remove fields and query parameters of the request, add
// fields to the response, and write the whole of a refusal. It cannot touch
// pseudo-header fields, Host, framing or the connection, nor break out of a field
// line (package guard); what it tries of that is ignored and counted. Dynamic
// metadata is not kept.
//
// Fields of the client whose names are in AllowedResponseHeaders are removed: the
// backend takes them for the service's word. Authorization and Cookie are not,
// since they are what the service was asked about. With an empty list all fields of
// the answer are copied (as Gateway API has it), except those that describe the
// answer itself, such as Content-Type.
package extauthz
