package jwt

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
)

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func at(d time.Duration) int64 { return time.Now().Add(d).Unix() }

// forged has a header of our own and a signature that is none.
func forged(header string, claims any) string {
	return b64(header) + "." + b64(string(must(json.Marshal(claims)))) + "." + b64("signature")
}

func TestTokens(t *testing.T) {
	pub := must(x509.MarshalPKIXPublicKey(rsaKey().Public()))
	withHeader := func(name string, value any) string {
		s := must(jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: p256Key()}, (&jose.SignerOptions{}).WithHeader(jose.HeaderKey(name), value).WithHeader("kid", "p256")))
		return must(must(s.Sign(must(json.Marshal(fine())))).CompactSerialize())
	}
	embedded := must(must(must(jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: otherRSA()}, &jose.SignerOptions{EmbedJWK: true})).Sign(must(json.Marshal(fine())))).CompactSerialize())
	parts := strings.Split(good(), ".")
	for _, c := range []struct {
		name, token string
		want        string // "" is accepted
	}{
		{"RS256", sign(jose.RS256, rsaKey(), "rsa", fine()), ""},
		{"RS512", sign(jose.RS512, rsaKey(), "rsa", fine()), ""},
		{"PS256", sign(jose.PS256, rsaKey(), "rsa", fine()), ""},
		{"PS384", sign(jose.PS384, rsaKey(), "rsa", fine()), ""},
		{"ES256", sign(jose.ES256, p256Key(), "p256", fine()), ""},
		{"ES384", sign(jose.ES384, p384Key(), "p384", fine()), ""},
		{"ES512", sign(jose.ES512, p521Key(), "p521", fine()), ""},
		{"EdDSA", sign(jose.EdDSA, edKey(), "ed", fine()), ""},
		{"no kid", sign(jose.ES256, p256Key(), "", fine()), ""},
		{"audience as a string", good(map[string]any{"aud": "shop"}), ""},
		{"never expires", good(map[string]any{"exp": nil}), ""},
		{"expired within leeway", good(map[string]any{"exp": at(-30 * time.Second)}), ""},
		{"early within leeway", good(map[string]any{"nbf": at(30 * time.Second)}), ""},
		{"fractions of a second", good(map[string]any{"exp": float64(at(time.Hour)) + 0.5}), ""},
		{"expires in the far future", good(map[string]any{"exp": 1e300}), ""},

		{"expired", good(map[string]any{"exp": at(-61 * time.Second)}), "expired"},
		{"expired before time began", good(map[string]any{"exp": -1e300}), "expired"},
		{"early", good(map[string]any{"nbf": at(62 * time.Second)}), "early"},
		{"another audience", good(map[string]any{"aud": "bank"}), "audience"},
		{"no audience", good(map[string]any{"aud": nil}), "audience"},
		{"another issuer", good(map[string]any{"iss": issuer + "/"}), "issuer"},
		{"no issuer", good(map[string]any{"iss": nil}), "issuer"},
		{"another key of this kid", sign(jose.RS256, otherRSA(), "rsa", fine()), "signature"},
		{"another key, no kid", sign(jose.RS256, otherRSA(), "", fine()), "signature"},
		{"key not known", sign(jose.RS256, otherRSA(), "new", fine()), "key"},
		{"kid of a key of another type", sign(jose.ES256, p256Key(), "rsa", fine()), "key"},
		{"other claims under the signature", parts[0] + "." + b64(string(must(json.Marshal(fine(map[string]any{"sub": "root"}))))) + "." + parts[2], "signature"},
		{"signature cut", parts[0] + "." + parts[1] + "." + parts[2][:40], "signature"},
		{"no signature", parts[0] + "." + parts[1] + ".", "signature"},
		{"key in the header", embedded, "signature"},

		{"none", forged(`{"alg":"none"}`, fine()), "algorithm"},
		{"None", forged(`{"alg":"None"}`, fine()), "algorithm"},
		{"none without a signature", strings.TrimSuffix(forged(`{"alg":"none"}`, fine()), b64("signature")), "algorithm"},
		{"no algorithm", forged(`{}`, fine()), "algorithm"},
		{"HMAC with the public key", sign(jose.HS256, pub, "rsa", fine()), "algorithm"},
		{"HMAC with the public key in PEM", sign(jose.HS512, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub}), "rsa", fine()), "algorithm"},
		{"crit", withHeader("crit", []string{"b64"}), "malformed"},
		{"crit that is none", withHeader("crit", false), "malformed"},
		{"algorithm twice", forged(`{"alg":"none","alg":"ES256"}`, fine()), "malformed"},
		{"not a JWT", "opaque", "malformed"},
		{"encrypted", "a.b.c.d.e", "malformed"},
		{"empty parts", "..", "algorithm"},
		{"JSON serialization", `{"payload":"e30","signatures":[]}`, "malformed"},
		{"white space inside", parts[0] + "\t." + parts[1] + "." + parts[2], "malformed"},
		{"padding", parts[0] + "=." + parts[1] + "." + parts[2], "malformed"},
		{"claims that are no object", sign(jose.ES256, p256Key(), "p256", []byte(`"alice"`)), "malformed"},
		{"claims that are null", sign(jose.ES256, p256Key(), "p256", []byte(`null`)), "malformed"},
		{"a claim twice", sign(jose.ES256, p256Key(), "p256", fmt.Appendf(nil, `{"iss":%q,"aud":"bank","aud":"shop"}`, issuer)), "malformed"},
		{"two values", sign(jose.ES256, p256Key(), "p256", []byte(`{}{}`)), "malformed"},
		{"exp is a string", good(map[string]any{"exp": "2099"}), "malformed"},
		{"iss is a list", good(map[string]any{"iss": []string{issuer}}), "malformed"},
		{"aud has a number", good(map[string]any{"aud": []any{"shop", 1}}), "malformed"},
		{"deep", sign(jose.ES256, p256Key(), "p256", fmt.Appendf(nil, `{"iss":%q,"aud":"shop","a":%s1%s}`, issuer, strings.Repeat(`{"a":`, 20), strings.Repeat("}", 20))), "malformed"},
		{"very deep", sign(jose.ES256, p256Key(), "p256", []byte(strings.Repeat("[", 10_500))), "malformed"},
		{"too long", good(map[string]any{"x": strings.Repeat("x", 20_000)}), "size"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := New(Config{Registerer: prometheus.NewRegistry()})
			v := verifier(t, m, basic())
			// The second time it may be known.
			for range 2 {
				req := withToken(c.token)
				r := v.Check(t.Context(), req)
				if c.want == "" {
					if !r.Allowed || r.Claims.Subject() != "alice" || r.Claims.Principal() != issuer+"/alice" || req.Fields.Has("authorization") {
						t.Fatalf("%+v %v", r, req.Fields)
					}
					continue
				}
				if r.Allowed || r.Status != 401 || r.Claims != nil || r.Policy != "shop/tokens" || !strings.Contains(r.Reason, "shop/tokens") {
					t.Fatalf("%+v", r)
				}
				challenge := r.Fields.Get("www-authenticate")
				if !strings.HasPrefix(challenge, `Bearer realm="shop/tokens", error="invalid_token", error_description="the token`) {
					t.Error(challenge)
				}
				for _, secret := range []string{c.token, issuer, "alice", "bank"} {
					if strings.Contains(challenge, secret) || strings.Contains(r.Reason, secret) {
						t.Errorf("tells of the token: %s", challenge)
					}
				}
			}
			want := c.want
			if want == "" {
				want = "allowed"
			}
			if got := testutil.ToFloat64(m.metrics.requests.WithLabelValues("shop/tokens", want)); got != 2 {
				t.Errorf("%v counted as %s", got, want)
			}
		})
	}
}

func header(name, prefix string) *waypoint.JWTLocation {
	return &waypoint.JWTLocation{Type: &waypoint.JWTLocation_Header{Header: name}, Prefix: prefix}
}

func query(name string) *waypoint.JWTLocation {
	return &waypoint.JWTLocation{Type: &waypoint.JWTLocation_QueryParam{QueryParam: name}}
}

func cookie(name string) *waypoint.JWTLocation {
	return &waypoint.JWTLocation{Type: &waypoint.JWTLocation_Cookie{Cookie: name}}
}

// Where tokens are found, and that nothing but them is taken away.
func TestLocations(t *testing.T) {
	tok, bad := good(), "bad"
	f := func(pairs ...string) message.Fields {
		var out message.Fields
		for i := 0; i < len(pairs); i += 2 {
			out.Add(pairs[i], pairs[i+1])
		}
		return out
	}
	for _, c := range []struct {
		name      string
		at        []*waypoint.JWTLocation
		path      string
		fields    message.Fields
		status    int // 0: passes with claims, 1: passes without
		wantPath  string
		wantField message.Fields
	}{
		{"default", nil, "/", f("authorization", "Bearer "+tok, "x", "y"), 0, "/", f("x", "y")},
		{"the scheme has no case", nil, "/", f("authorization", "bEARER  "+tok), 0, "/", f()},
		{"another scheme", nil, "/", f("authorization", "Basic "+tok), 1, "/", f("authorization", "Basic "+tok)},
		{"another scheme beside", nil, "/", f("authorization", "Basic x", "authorization", "Bearer "+tok), 0, "/", f("authorization", "Basic x")},
		{"scheme alone", nil, "/", f("authorization", "Bearer "), 1, "/", f("authorization", "Bearer ")},
		{"twice the same", nil, "/", f("authorization", "Bearer "+tok, "authorization", "Bearer "+tok), 0, "/", f()},
		{"two", nil, "/", f("authorization", "Bearer "+tok, "authorization", "Bearer "+bad), 400, "", nil},
		{"two in a line", nil, "/", f("authorization", "Bearer "+tok+", Bearer "+tok), 401, "", nil},
		{"authorization named, without a prefix", []*waypoint.JWTLocation{header("Authorization", "")}, "/", f("authorization", "Bearer "+tok), 0, "/", f()},
		{"own header", []*waypoint.JWTLocation{header("X-Token", "")}, "/", f("x-token", tok, "authorization", "Bearer "+bad), 0, "/", f("authorization", "Bearer "+bad)},
		{"own header and prefix", []*waypoint.JWTLocation{header("x-token", "jwt ")}, "/", f("x-token", "jwt "+tok), 0, "/", f()},
		{"query", []*waypoint.JWTLocation{query("access_token")}, "/a?x=%20&access_token=" + tok + "&y=;", f(), 0, "/a?x=%20&y=;", f()},
		{"query alone", []*waypoint.JWTLocation{query("access_token")}, "/a?access_token=" + tok, f(), 0, "/a", f()},
		{"query, name encoded", []*waypoint.JWTLocation{query("access_token")}, "/a?a%63cess_token=" + tok, f(), 0, "/a", f()},
		{"query twice", []*waypoint.JWTLocation{query("t")}, "/a?t=" + tok + "&%74=" + bad, f(), 400, "", nil},
		{"query, none", []*waypoint.JWTLocation{query("t")}, "/a?x", f(), 1, "/a?x", f()},
		{"query of OPTIONS *", []*waypoint.JWTLocation{query("t")}, "*", f(), 1, "*", f()},
		{"cookie", []*waypoint.JWTLocation{cookie("jwt")}, "/", f("cookie", "a=b; jwt="+tok+"; c=d"), 0, "/", f("cookie", "a=b; c=d")},
		{"cookie alone", []*waypoint.JWTLocation{cookie("jwt")}, "/", f("cookie", `jwt="`+tok+`"`, "x", "y"), 0, "/", f("x", "y")},
		{"cookies on several lines", []*waypoint.JWTLocation{cookie("jwt")}, "/", f("cookie", "a=b", "cookie", "jwt="+tok), 0, "/", f("cookie", "a=b")},
		{"cookie twice", []*waypoint.JWTLocation{cookie("jwt")}, "/", f("cookie", "jwt="+tok+"; jwt="+bad), 400, "", nil},
		{"cookie's case", []*waypoint.JWTLocation{cookie("jwt")}, "/", f("cookie", "JWT="+bad), 1, "/", f("cookie", "JWT="+bad)},
		{"both good", []*waypoint.JWTLocation{cookie("jwt"), header("authorization", "")}, "/", f("cookie", "jwt="+tok, "authorization", "Bearer "+tok), 0, "/", f()},
		{"one of two bad", []*waypoint.JWTLocation{cookie("jwt"), header("authorization", "")}, "/", f("cookie", "jwt="+tok, "authorization", "Bearer "+bad), 401, "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := verifier(t, New(Config{}), basic(func(p *waypoint.JWTProvider) { p.Locations = c.at }))
			req := request(c.fields.Clone(0)...)
			req.Path = c.path
			r := v.Check(t.Context(), req)
			if r.Allowed != (c.status <= 1) || r.Status != c.status && !r.Allowed || (r.Claims != nil) != (c.status == 0) {
				t.Fatalf("%+v", r)
			}
			if c.status > 1 {
				return
			}
			if diff := cmp.Diff(append(message.Fields{}, c.wantField...), append(message.Fields{}, req.Fields...)); diff != "" || req.Path != c.wantPath {
				t.Errorf("%s %s", req.Path, diff)
			}
			// Forwarded, the request is as it was.
			v = verifier(t, New(Config{}), basic(func(p *waypoint.JWTProvider) { p.Locations, p.Forward = c.at, true }))
			req = request(c.fields.Clone(0)...)
			req.Path = c.path
			v.Check(t.Context(), req)
			if diff := cmp.Diff(append(message.Fields{}, c.fields...), append(message.Fields{}, req.Fields...)); diff != "" || req.Path != c.path {
				t.Errorf("forwarded: %s %s", req.Path, diff)
			}
		})
	}
}

// Fields for claims are never the client's.
func TestOutputClaims(t *testing.T) {
	out := func(p *waypoint.JWTProvider) {
		for header, claim := range map[string]string{"X-Sub": "sub", "x-groups": "groups", "x-tenant": "org.tenant", "x-level": "level", "x-object": "org", "x-bad": "bad", "x-absent": "absent"} {
			p.OutputClaims = append(p.OutputClaims, &waypoint.ClaimHeader{Header: header, Claim: claim})
		}
	}
	v := verifier(t, New(Config{}), basic(out))
	spoofed := message.Fields{
		{Name: "x-sub", Value: "root"}, {Name: "keep", Value: "1"}, {Name: "x-sub", Value: "root"}, {Name: "x-bad", Value: "root"}, {Name: "x-absent", Value: "root"}, {Name: "x-object", Value: "root"},
	}
	req := request(spoofed.Clone(0)...)
	if r := v.Check(t.Context(), req); !r.Allowed || len(req.Fields) != 1 || r.Claims != nil {
		t.Errorf("without a token: %+v %v", r, req.Fields)
	}
	req = request(spoofed.Clone(0)...)
	req.Fields.Add("authorization", "Bearer "+good(map[string]any{"groups": []any{"a", 2, true, nil}, "org": map[string]any{"tenant": "t1"}, "level": 1.50, "bad": "a\r\nx-admin: 1"}))
	if r := v.Check(t.Context(), req); !r.Allowed {
		t.Fatalf("%+v", r)
	}
	want := map[string]string{"keep": "1", "x-sub": "alice", "x-groups": "a,2,true", "x-tenant": "t1", "x-level": "1.5"}
	got := map[string]string{}
	for _, f := range req.Fields {
		if _, twice := got[f.Name]; twice {
			t.Errorf("%s twice", f.Name)
		}
		got[f.Name] = f.Value
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRequired(t *testing.T) {
	v := verifier(t, New(Config{}), basic(), basic(func(p *waypoint.JWTProvider) { p.Policy, p.Issuer, p.Required = `shop/"req`, "other", true }))
	r := v.Check(t.Context(), request())
	if r.Allowed || r.Status != 401 || r.Policy != `shop/"req` || r.Fields.Get("www-authenticate") != `Bearer realm="shop/req"` {
		t.Errorf("%+v", r)
	}
	// Any good token will do.
	if r := v.Check(t.Context(), withToken(good())); !r.Allowed {
		t.Errorf("%+v", r)
	}
}

// A token is judged by the provider of its issuer, where that looks.
func TestProviders(t *testing.T) {
	a := basic(func(p *waypoint.JWTProvider) {
		p.Policy, p.OutputClaims = "shop/a", []*waypoint.ClaimHeader{{Header: "x-a", Claim: "sub"}}
	})
	b := basic(func(p *waypoint.JWTProvider) {
		p.Policy, p.Issuer, p.Audiences, p.Forward = "shop/b", "https://b", nil, true
		p.Keys = &waypoint.JWTProvider_Jwks{Jwks: jwks(publicJWK("rsa", otherRSA()))}
		p.Locations = []*waypoint.JWTLocation{header("authorization", ""), header("x-b", "")}
		p.OutputClaims = []*waypoint.ClaimHeader{{Header: "x-b-sub", Claim: "sub"}}
	})
	// The same issuer for another audience.
	c := basic(func(p *waypoint.JWTProvider) { p.Policy, p.Audiences = "shop/c", []string{"bank"} })
	v := verifier(t, New(Config{}), a, b, c)
	ofB := sign(jose.RS256, otherRSA(), "rsa", fine(map[string]any{"iss": "https://b", "sub": "bob"}))
	for _, tc := range []struct {
		name   string
		fields message.Fields
		want   string // of the claims, or the policy that refuses
		ok     bool
	}{
		{"a", message.Fields{{Name: "authorization", Value: "Bearer " + good()}}, "alice", true},
		{"b", message.Fields{{Name: "authorization", Value: "Bearer " + ofB}}, "bob", true},
		{"c", message.Fields{{Name: "authorization", Value: "Bearer " + good(map[string]any{"aud": "bank"})}}, "alice", true},
		{"neither a's nor c's audience", message.Fields{{Name: "authorization", Value: "Bearer " + good(map[string]any{"aud": "x"})}}, "shop/a", false},
		{"b's issuer with a's key", message.Fields{{Name: "authorization", Value: "Bearer " + sign(jose.RS256, rsaKey(), "rsa", fine(map[string]any{"iss": "https://b"}))}}, "shop/b", false},
		{"both", message.Fields{{Name: "x-b", Value: ofB}, {Name: "authorization", Value: "Bearer " + good()}}, "alice", true},
		{"a's where only b looks", message.Fields{{Name: "x-b", Value: good()}}, "shop/b", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := request(tc.fields...)
			r := v.Check(t.Context(), req)
			if r.Allowed != tc.ok || tc.ok && r.Claims.Subject() != tc.want || !tc.ok && r.Policy != tc.want {
				t.Errorf("%+v", r)
			}
			if tc.name == "both" && (req.Fields.Get("x-a") != "alice" || req.Fields.Get("x-b-sub") != "bob" || !req.Fields.Has("x-b")) {
				t.Errorf("%v", req.Fields)
			}
		})
	}
}

// What cannot be used refuses everything and says what to do.
func TestInvalidProviders(t *testing.T) {
	for _, c := range []struct {
		want   string
		change func(*waypoint.JWTProvider)
	}{
		{"issuer: is missing", func(p *waypoint.JWTProvider) { p.Issuer = "" }},
		{"keys: are missing", func(p *waypoint.JWTProvider) { p.Keys = nil }},
		{"jwks: not a JWK set", func(p *waypoint.JWTProvider) { p.Keys = &waypoint.JWTProvider_Jwks{Jwks: "{"} }},
		{"jwks: none of its 0 keys", func(p *waypoint.JWTProvider) { p.Keys = &waypoint.JWTProvider_Jwks{Jwks: `{"keys":[]}`} }},
		{"jwks_uri:", func(p *waypoint.JWTProvider) { p.Keys = &waypoint.JWTProvider_JwksUri{JwksUri: "file:///etc/passwd"} }},
		{"jwks_uri:", func(p *waypoint.JWTProvider) {
			p.Keys = &waypoint.JWTProvider_JwksUri{JwksUri: "https://user:secret@host/"}
		}},
		{"jwks_uri:", func(p *waypoint.JWTProvider) { p.Keys = &waypoint.JWTProvider_JwksUri{JwksUri: "https://"} }},
		{"locations[0].header:", func(p *waypoint.JWTProvider) { p.Locations = []*waypoint.JWTLocation{header("host", "")} }},
		{"locations[0]: is of no known type", func(p *waypoint.JWTProvider) { p.Locations = []*waypoint.JWTLocation{{}} }},
		{"locations[1]: has no name", func(p *waypoint.JWTProvider) { p.Locations = []*waypoint.JWTLocation{header("x", ""), cookie("")} }},
		{"output_claims[0].header:", func(p *waypoint.JWTProvider) {
			p.OutputClaims = []*waypoint.ClaimHeader{{Header: "transfer-encoding", Claim: "sub"}}
		}},
		{"output_claims[0].claim:", func(p *waypoint.JWTProvider) { p.OutputClaims = []*waypoint.ClaimHeader{{Header: "x"}} }},
	} {
		v, errs := New(Config{}).Set("shop/cart", []*waypoint.JWTProvider{basic(), basic(c.change)})
		if len(errs) != 1 || !strings.Contains(errs[0].Error(), "policy shop/tokens: jwt_providers[1]: "+c.want) || strings.Contains(errs[0].Error(), "secret") {
			t.Errorf("%v, want %s", errs, c.want)
		}
		for _, req := range []*message.Request{request(), withToken(good())} {
			if r := v.Check(t.Context(), req); r.Allowed || r.Status != 500 || r.Policy != "shop/tokens" || !strings.Contains(r.Reason, c.want) {
				t.Errorf("%+v", r)
			}
		}
	}
	if v, errs := New(Config{}).Set("shop/cart", nil); v != nil || errs != nil || !v.Check(t.Context(), request()).Allowed {
		t.Error("without providers all pass")
	}
}
