package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

// Limits of a JWK set.
const (
	maxSetBytes = 1 << 20
	maxKeys     = 256
	// RFC 7518 section 3.3; beyond the upper limit a signature costs too much to
	// look at.
	minRSABits, maxRSABits = 2048, 8192
)

// keyID names a key with everything that matters about it.
type keyID [sha256.Size]byte

// key is a public key that signatures are verified with.
type key struct {
	id     keyID
	kid    string
	algs   []jose.SignatureAlgorithm
	public any
}

// keySet is the keys that an issuer has at one time. It is immutable.
type keySet struct {
	keys []*key
	ids  map[keyID]struct{}
	// skipped is how many more there were that cannot be used.
	skipped int
	// sum tells whether another set says the same.
	sum [sha256.Size]byte
}

// algorithms are all that are accepted.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// parseKeys reads a JWK set (RFC 7517 section 5). Keys that are not for verifying
// signatures, or that cannot be used, are passed over as that section says.
func parseKeys(raw []byte) (*keySet, error) {
	if len(raw) > maxSetBytes {
		return nil, fmt.Errorf("the key set has %d bytes, more than %d", len(raw), maxSetBytes)
	}
	var in struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return nil, fmt.Errorf("not a JWK set: %w", err)
	}
	if in.Keys == nil {
		return nil, errors.New(`not a JWK set: it has no "keys"`)
	}
	if len(in.Keys) > maxKeys {
		return nil, fmt.Errorf("the key set has %d keys, more than %d", len(in.Keys), maxKeys)
	}
	set := &keySet{ids: make(map[keyID]struct{}, len(in.Keys)), sum: sha256.Sum256(raw)}
	for _, one := range in.Keys {
		k, err := parseKey(one)
		if err != nil {
			set.skipped++
			continue
		}
		if _, twice := set.ids[k.id]; !twice {
			set.keys = append(set.keys, k)
			set.ids[k.id] = struct{}{}
		}
	}
	return set, nil
}

var errKeyUse = errors.New("not a key for verifying signatures")

func parseKey(raw []byte) (*key, error) {
	var about struct {
		Use    string          `json:"use"`
		KeyOps []string        `json:"key_ops"`
		Secret json.RawMessage `json:"k"`
		// Who publishes a private key has no key any more.
		Private json.RawMessage `json:"d"`
	}
	if err := json.Unmarshal(raw, &about); err != nil {
		return nil, err
	}
	if about.Use != "" && about.Use != "sig" || len(about.KeyOps) > 0 && !slices.Contains(about.KeyOps, "verify") ||
		about.Secret != nil || about.Private != nil {
		return nil, errKeyUse
	}
	var jwk jose.JSONWebKey
	if err := jwk.UnmarshalJSON(raw); err != nil {
		return nil, err
	}
	k := &key{kid: jwk.KeyID, public: jwk.Key}
	for _, alg := range fitting(jwk.Key) {
		if jwk.Algorithm == "" || jwk.Algorithm == string(alg) {
			k.algs = append(k.algs, alg)
		}
	}
	if len(k.algs) == 0 || !jwk.Valid() {
		return nil, errKeyUse
	}
	thumb, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, err
	}
	k.id = sha256.Sum256(fmt.Appendf(nil, "%q %v %x", k.kid, k.algs, thumb))
	return k, nil
}

// fitting gives the algorithms that a key is for.
func fitting(public any) []jose.SignatureAlgorithm {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits >= minRSABits && bits <= maxRSABits {
			return algorithms[:6]
		}
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return []jose.SignatureAlgorithm{jose.ES256}
		case elliptic.P384():
			return []jose.SignatureAlgorithm{jose.ES384}
		case elliptic.P521():
			return []jose.SignatureAlgorithm{jose.ES512}
		}
	case ed25519.PublicKey:
		return []jose.SignatureAlgorithm{jose.EdDSA}
	}
	return nil
}

func (s *keySet) has(id keyID) bool {
	_, ok := s.ids[id]
	return ok
}

// maxTries bounds what a token without kid can make us compute.
const maxTries = 8

// verify gives the key that has signed a token; tried is how many could have.
func (s *keySet) verify(t *token) (by *key, tried int) {
	for _, k := range s.keys {
		// A key without kid may be anybody's, RFC 7517 section 4.5.
		if t.kid != "" && k.kid != "" && k.kid != t.kid || !slices.Contains(k.algs, t.alg) {
			continue
		}
		if tried++; tried > maxTries {
			break
		}
		if _, err := t.jws.Verify(k.public); err == nil {
			return k, tried
		}
	}
	return nil, tried
}
