package waypoint_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// issuer signs tokens.
type issuer struct {
	t   *testing.T
	key *ecdsa.PrivateKey
	id  string
}

func newIssuer(t *testing.T) *issuer { return issuerOf(t, "one") }

// issuerOf has a key of that id.
func issuerOf(t *testing.T, id string) *issuer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{t, key, id}
}

// jwks are the keys as a policy has them inline.
func (i *issuer) jwks() string {
	i.t.Helper()
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.key.Public(), KeyID: i.id, Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		i.t.Fatal(err)
	}
	return string(text)
}

// token is a good one, but for what changes say; nil takes a claim away.
func (i *issuer) token(changes map[string]any) string {
	i.t.Helper()
	claims := map[string]any{"iss": "https://id.example", "aud": "signed", "sub": "ada", "exp": time.Now().Add(time.Hour).Unix(), "groups": []string{"staff", "ops"}}
	maps.Copy(claims, changes)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: i.key}, (&jose.SignerOptions{}).WithHeader("kid", i.id))
	if err != nil {
		i.t.Fatal(err)
	}
	text, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		i.t.Fatal(err)
	}
	return text
}

func bearer(token string) map[string]string {
	return map[string]string{"authorization": "Bearer " + token, "x-user": "mallory"}
}

// Tokens are verified, their claims decide, and the backend is told who it is.
func TestJWT(t *testing.T) {
	m := use(t)
	id := newIssuer(t)
	m.apply(service("signed", "v1") + policy("JWTAuthentication", "signed", fmt.Sprintf(`
targetRefs: [{kind: Service, name: signed}]
required: true
providers:
- name: id
  issuer: https://id.example
  audiences: [signed]
  jwks: {inline: '%s'}
  outputClaims: [{header: x-user, claim: sub}]
`, id.jwks())) + policy("AuthorizationPolicy", "signed", `
targetRefs: [{kind: Service, name: signed}]
action: ALLOW
enforcementLevel: Application
rules:
- name: staff
  application: {claims: [{issuer: "https://id.example", name: groups, values: [staff]}]}
- name: public
  application: {paths: [{type: PathPrefix, value: /public}]}
`))
	m.until("a token is wanted", request{URL: "http://signed/"}, status(401))
	m.until("a good one is enough", request{URL: "http://signed/", Header: bearer(id.token(nil))}, status(200))
	cases := []struct {
		name   string
		token  string
		status int
		says   string // in WWW-Authenticate or Proxy-Status
	}{
		{"good", id.token(nil), 200, ""},
		{"expired", id.token(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}), 401, "expired"},
		{"not yet", id.token(map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}), 401, "not valid yet"},
		{"of another issuer", id.token(map[string]any{"iss": "https://evil.example"}), 401, "issuer"},
		{"for somebody else", id.token(map[string]any{"aud": "other"}), 401, "audience"},
		{"of another key", newIssuer(t).token(nil), 401, "signature"},
		{"gibberish", "a.b.c", 401, ""},
		{"not staff", id.token(map[string]any{"groups": []string{"guests"}}), 403, "signed"},
	}
	for _, tc := range cases {
		r := m.ask(request{URL: "http://signed/", Header: bearer(tc.token)})[0]
		said := r.Header.Get("www-authenticate") + " " + r.Header.Get("proxy-status")
		if r.Status != tc.status || !strings.Contains(said, tc.says) {
			t.Errorf("a token that is %s: %d, want %d; it says %q, want %q", tc.name, r.Status, tc.status, said, tc.says)
		}
		if r.Status == 401 && !strings.HasPrefix(r.Header.Get("www-authenticate"), "Bearer") {
			t.Errorf("a token that is %s: WWW-Authenticate %q", tc.name, r.Header.Get("www-authenticate"))
		}
	}
	got := m.ask(
		request{URL: "http://signed/", Header: bearer(id.token(nil))},
		request{URL: "http://signed/public", Header: bearer(id.token(map[string]any{"groups": nil}))},
		request{URL: "http://signed/public"},
	)
	if h := got[0].Seen.Header; h.Get("x-user") != "ada" || h.Get("authorization") != "" {
		t.Errorf("the backend saw %v", h)
	}
	if got[1].Status != 200 || got[2].Status != 401 {
		t.Errorf("of a path for all: with a token %d, without %d", got[1].Status, got[2].Status)
	}
	m.logged(`"dst.service":"signed.app.svc.cluster.local"`, `"status":401`, `"response_flags":"JWT"`, `"policy":"signed"`)
	m.counted("ambit_jwt_requests_total", "app/signed")
}
