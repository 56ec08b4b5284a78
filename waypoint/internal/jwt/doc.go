// Package jwt verifies the bearer tokens of requests (RFC 7519, RFC 6750).
//
//	jwks_uri ── source (fetches) ─▶ keySet ┐
//	request ─▶ locations ─▶ token ─▶ issuer's provider ─▶ Result: refused, or Claims
//	                          └─ cache of verified tokens ┘
//
// A Manager belongs to a waypoint and owns all fetching; a Verifier, made from the
// providers of one frontend, judges requests. Which claims may do what is up to
// authorization policies; this package tells them who the token speaks of.
//
// # Which requests pass
//
// Every token that a request carries where a provider looks for one must be
// accepted, or the request is refused with 401 and WWW-Authenticate (RFC 6750
// section 3), which names the policy and the reason and nothing of the token. A
// token is judged by the providers that look there and have its issuer; if several
// do, one that accepts it is enough. Two different tokens in one place are refused
// with 400, since the backend might take the other one. A request without a token
// passes, unless a provider requires one. If tokens of several providers are
// accepted the claims are those of the first, in the order of the configuration.
//
// A token is accepted if its signature is by a key of the provider, it is within
// its time (Leeway is allowed for), it has one of the audiences, where any are
// given, and its issuer exactly. Without exp it does not expire: RFC 7519 leaves
// that to the issuer. Algorithms are RS, PS and ES 256, 384 and 512, and EdDSA with
// Ed25519: none and HMAC are not known here, an algorithm fits one type of key
// only, and a key that has alg is used for no other (RFC 8725 section 3.1). Keys
// in the token's own header (jwk, x5c, jku) mean nothing; crit is refused. Claims
// that occur twice are refused.
//
// # Keys
//
// Keys at a URI are fetched when the provider is configured and again when 80 % of
// their time have gone by; a change of the configuration does not fetch what is
// still wanted. A token with a key that is not known has them fetched at once, for
// all who wait together, and at most every MinInterval, so that a rotation is
// noticed and a forger cannot use the waypoint against the issuer. While the
// endpoint is away or answers gibberish the last good keys are used, and a metric
// shows how old they are. Requests whose keys have never come are refused with 503:
// nobody knows whether their token is good. A set of keys that is valid and has
// none that can be used leaves no token accepted.
//
// Verified tokens are remembered by their SHA-256, with their key and claims, in
// bounded memory. Time, audience and issuer are judged anew for each request, and
// so is whether the provider still has the key.
//
// # What becomes of the request
//
// Fields for claims (output_claims) are the waypoint's to write: the client's own
// are removed first, token or not. Numbers and booleans are written as in the
// token, lists with commas, objects not at all. The token is removed unless the
// provider forwards it.
package jwt
