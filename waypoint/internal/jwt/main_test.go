package jwt

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rsaKey and the others are made once: it takes long.
var (
	rsaKey   = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	otherRSA = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	p256Key  = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	p384Key  = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) })
	p521Key  = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)) })
	edKey    = sync.OnceValue(func() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(make([]byte, 32)) })
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func publicJWK(kid string, k crypto.Signer) jose.JSONWebKey {
	return jose.JSONWebKey{Key: k.Public(), KeyID: kid, Use: "sig"}
}

func jwks(keys ...jose.JSONWebKey) string {
	return string(must(json.Marshal(jose.JSONWebKeySet{Keys: keys})))
}

// allKeys is a set with a key of each type.
func allKeys() string {
	return jwks(publicJWK("rsa", rsaKey()), publicJWK("p256", p256Key()), publicJWK("p384", p384Key()), publicJWK("p521", p521Key()), publicJWK("ed", edKey()))
}

const issuer = "https://issuer.example"

// fine is the claims of a token that is accepted.
func fine(change ...map[string]any) map[string]any {
	now := time.Now()
	c := map[string]any{"iss": issuer, "sub": "alice", "aud": []string{"shop", "other"}, "exp": now.Add(time.Hour).Unix(), "nbf": now.Add(-time.Minute).Unix()}
	for _, m := range change {
		maps.Copy(c, m)
	}
	return c
}

func sign(alg jose.SignatureAlgorithm, key any, kid string, claims any) string {
	opts := (&jose.SignerOptions{}).WithType("JWT")
	if kid != "" {
		opts = opts.WithHeader("kid", kid)
	}
	payload, ok := claims.([]byte)
	if !ok {
		payload = must(json.Marshal(claims))
	}
	jws := must(must(jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts)).Sign(payload))
	return must(jws.CompactSerialize())
}

// good is a token that is accepted.
func good(change ...map[string]any) string {
	return sign(jose.ES256, p256Key(), "p256", fine(change...))
}

// basic is a provider with keys that are written down.
func basic(change ...func(*waypoint.JWTProvider)) *waypoint.JWTProvider {
	p := &waypoint.JWTProvider{Policy: "shop/tokens", Issuer: issuer, Audiences: []string{"shop"}, Keys: &waypoint.JWTProvider_Jwks{Jwks: allKeys()}}
	for _, c := range change {
		c(p)
	}
	return p
}

const uri = "https://issuer.example/keys"

// remote is a provider whose keys are fetched.
func remote(change ...func(*waypoint.JWTProvider)) *waypoint.JWTProvider {
	p := basic(change...)
	p.Keys = &waypoint.JWTProvider_JwksUri{JwksUri: uri}
	if p.CacheDuration == nil {
		p.CacheDuration = durationpb.New(5 * time.Minute)
	}
	return p
}

func verifier(t testing.TB, m *Manager, providers ...*waypoint.JWTProvider) *Verifier {
	t.Helper()
	v, errs := m.Set("shop/cart", providers)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return v
}

func request(fields ...message.Field) *message.Request {
	return &message.Request{Method: "GET", Scheme: "http", Authority: "cart", Path: "/", Fields: fields}
}

func withToken(token string) *message.Request {
	return request(message.Field{Name: "authorization", Value: "Bearer " + token})
}

// endpoint is a JWKS endpoint without a network.
type endpoint struct {
	mu    sync.Mutex
	keys  string        // guarded by mu
	err   error         // guarded by mu
	calls int           // guarded by mu
	takes time.Duration // guarded by mu
}

var _ Fetcher = (*endpoint)(nil)

func (e *endpoint) Fetch(ctx context.Context, _ string) ([]byte, error) {
	e.mu.Lock()
	e.calls++
	keys, err, takes := e.keys, e.err, e.takes
	e.mu.Unlock()
	if takes > 0 {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(takes):
		}
	}
	return []byte(keys), err
}

func (e *endpoint) set(keys string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.keys, e.err = keys, err
}

func (e *endpoint) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.calls
}

// run runs a manager until the test ends.
func run(t *testing.T, m *Manager) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
