package jwt

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

func TestParseKeys(t *testing.T) {
	change := func(k jose.JSONWebKey, c func(map[string]any)) string {
		m := map[string]any{}
		if err := json.Unmarshal(must(json.Marshal(k)), &m); err != nil {
			t.Fatal(err)
		}
		c(m)
		return `{"keys":[` + string(must(json.Marshal(m))) + `]}`
	}
	good := publicJWK("rsa", rsaKey())
	private := jose.JSONWebKey{Key: rsaKey(), KeyID: "private"}
	small := must(rsa.GenerateKey(rand.Reader, 1024))
	p224 := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	for _, c := range []struct {
		name, raw     string
		keys, skipped int // keys -1: not a set
	}{
		{"each type", allKeys(), 5, 0},
		{"none", `{"keys":[]}`, 0, 0},
		{"other members", `{"x":1,"keys":[]}`, 0, 0},
		{"twice", jwks(good, good), 1, 0},
		{"not JSON", `{"keys":[`, -1, 0},
		{"a list", `[]`, -1, 0},
		{"no keys", `{}`, -1, 0},
		{"keys are null", `{"keys":null}`, -1, 0},
		{"an HTML page", `<html>`, -1, 0},
		{"very deep", `{"keys":` + strings.Repeat("[", 100_000), -1, 0},
		{"too long", `{"keys":[]}` + strings.Repeat(" ", maxSetBytes), -1, 0},
		{"too many", `{"keys":[` + strings.TrimSuffix(strings.Repeat("{},", maxKeys+1), ",") + `]}`, -1, 0},
		{"what is no key", `{"keys":[1,"x",null,{},{"kty":"RSA"},{"kty":"new"}]}`, 0, 6},
		{"symmetric", jwks(jose.JSONWebKey{Key: []byte("0123456789abcdef0123456789abcdef")}), 0, 1},
		{"symmetric that says it is RSA", change(good, func(m map[string]any) { m["k"] = "c2VjcmV0" }), 0, 1},
		{"private", `{"keys":[` + string(must(json.Marshal(private))) + `]}`, 0, 1},
		{"for encryption", change(good, func(m map[string]any) { m["use"] = "enc" }), 0, 1},
		{"for wrapping", change(good, func(m map[string]any) { m["key_ops"] = []string{"wrapKey"} }), 0, 1},
		{"for verifying", change(good, func(m map[string]any) { m["key_ops"] = []string{"verify"} }), 1, 0},
		{"algorithm of another type", change(good, func(m map[string]any) { m["alg"] = "ES256" }), 0, 1},
		{"algorithm is HMAC", change(good, func(m map[string]any) { m["alg"] = "HS256" }), 0, 1},
		{"algorithm", change(good, func(m map[string]any) { m["alg"] = "PS256" }), 1, 0},
		{"short RSA key", jwks(publicJWK("s", small)), 0, 1},
		{"huge RSA key", change(good, func(m map[string]any) { m["n"] = strings.Repeat("_", 3000) }), 0, 1},
		{"curve that is not accepted", change(publicJWK("p", p256Key()), func(m map[string]any) { m["crv"] = p224.Params().Name }), 0, 1},
		{"point off the curve", change(publicJWK("p", p256Key()), func(m map[string]any) { m["x"], m["y"] = m["y"], m["x"] }), 0, 1},
		{"certificate that is none", change(good, func(m map[string]any) { m["x5c"] = []string{"AAAA"} }), 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			set, err := parseKeys([]byte(c.raw))
			if c.keys < 0 {
				if err == nil {
					t.Fatal("accepted")
				}
				return
			}
			if err != nil || len(set.keys) != c.keys || set.skipped != c.skipped || len(set.ids) != c.keys {
				t.Fatalf("%+v, %v", set, err)
			}
		})
	}
}

// A key with alg is used for no other.
func TestKeyAlgorithm(t *testing.T) {
	k := publicJWK("rsa", rsaKey())
	k.Algorithm = "PS256"
	set := must(parseKeys([]byte(jwks(k))))
	for alg, want := range map[jose.SignatureAlgorithm]bool{jose.PS256: true, jose.RS256: false, jose.PS384: false} {
		tok, no := parseToken(sign(alg, rsaKey(), "rsa", fine()))
		if no != nil {
			t.Fatal(no)
		}
		if by, _ := set.verify(tok); (by != nil) != want {
			t.Errorf("%s: %v", alg, by != nil)
		}
	}
}

// A token without kid does not make us try every key.
func TestTries(t *testing.T) {
	var many []jose.JSONWebKey
	for i := range 3 * maxTries {
		many = append(many, publicJWK(fmt.Sprint(i), p256Key()))
	}
	set := must(parseKeys([]byte(jwks(many...))))
	tok, _ := parseToken(sign(jose.ES256, must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), "", fine()))
	if by, tried := set.verify(tok); by != nil || tried != maxTries+1 {
		t.Errorf("%d tries", tried)
	}
}
