package jwt

import (
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// token is one that has been read. It has not been verified.
type token struct {
	jws    *jose.JSONWebSignature
	alg    jose.SignatureAlgorithm
	kid    string
	claims *Claims
}

// parseToken reads a token in compact form (RFC 7515 section 7.1), which is the
// only form of a JWT.
func parseToken(raw string) (*token, *refusal) {
	if !compact(raw) {
		return nil, refuse("malformed", "the token is not a signed JWT")
	}
	jws, err := jose.ParseSignedCompact(raw, algorithms)
	if err != nil {
		if _, ok := err.(*jose.ErrUnexpectedSignatureAlgorithm); ok {
			return nil, refuse("algorithm", "the token's algorithm is not accepted")
		}
		return nil, refuse("malformed", "the token is not a signed JWT")
	}
	head := jws.Signatures[0].Protected
	if _, ok := head.ExtraHeaders["crit"]; ok {
		// Extensions, b64 among them (RFC 7797 section 7), have no place in a JWT here.
		return nil, refuse("malformed", "the token requires an extension that is not known")
	}
	claims, err := parseClaims(jws.UnsafePayloadWithoutVerification())
	if err != nil {
		return nil, refuse("malformed", "the token's claims cannot be read")
	}
	return &token{jws: jws, alg: jose.SignatureAlgorithm(head.Algorithm), kid: head.KeyID, claims: claims}, nil
}

// compact reports whether there are three parts of base64url. Decoders are more
// lenient than that.
func compact(raw string) bool {
	for i := range len(raw) {
		c := raw[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return strings.Count(raw, ".") == 2
}
