package jwt

import (
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/internal/guard"
)

// No token passes that was not signed by the issuer, and no answer breaks.
func FuzzToken(f *testing.F) {
	token := good()
	parts := strings.Split(token, ".")
	f.Add(token)
	f.Add(b64(`{"alg":"none"}`) + "." + parts[1] + ".")
	f.Add(b64(`{"alg":"ES256","kid":"p256","crit":["b64"],"b64":false}`) + "." + parts[1] + "." + parts[2])
	f.Add(sign(jose.HS256, []byte("0123456789abcdef0123456789abcdef"), "rsa", fine()))
	f.Add("a.b.c")
	m := New(Config{})
	v, errs := m.Set("f", []*waypoint.JWTProvider{basic(func(p *waypoint.JWTProvider) {
		p.Locations = []*waypoint.JWTLocation{header("authorization", ""), query("t"), cookie("t")}
		p.OutputClaims = []*waypoint.ClaimHeader{{Header: "x-sub", Claim: "sub"}}
	})})
	if len(errs) > 0 {
		f.Fatal(errs)
	}
	signed, _, _ := strings.Cut(token, "."+parts[2])
	f.Fuzz(func(t *testing.T, raw string) {
		for _, req := range []*message.Request{
			withToken(raw), request(message.Field{Name: "cookie", Value: "t=" + raw}),
			{Method: "GET", Path: "/?t=" + raw},
		} {
			r := v.Check(t.Context(), req)
			if r.Allowed && r.Claims != nil && !strings.Contains(raw, signed) {
				t.Fatalf("accepted %q", raw)
			}
			if !r.Allowed && r.Status != 401 && r.Status != 400 {
				t.Fatalf("%+v", r)
			}
			if r.Allowed && req.Fields.Has("x-sub") != (r.Claims != nil) {
				t.Fatalf("%v", req.Fields)
			}
			for _, l := range r.Fields {
				if _, fault := guard.Field(l.Name, l.Value); fault != guard.Fine {
					t.Fatalf("%q", l.Value)
				}
			}
		}
		if tok, no := parseToken(raw); no == nil && (tok.claims == nil || !compact(raw)) {
			t.Fatal("read what is no token")
		}
	})
}

// Whatever an endpoint answers, keys are asymmetric and fit their algorithms.
func FuzzKeys(f *testing.F) {
	f.Add([]byte(allKeys()))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"c2VjcmV0"},{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"EC","crv":"P-256","x":"","y":""},{"kty":"OKP","crv":"Ed25519","x":"AA"}]}`))
	f.Add([]byte(`{"keys":null}`))
	tok, _ := parseToken(good())
	f.Fuzz(func(t *testing.T, raw []byte) {
		set, err := parseKeys(raw)
		if err != nil {
			return
		}
		if len(set.keys)+set.skipped > maxKeys || len(set.ids) != len(set.keys) {
			t.Fatalf("%d keys, %d skipped", len(set.keys), set.skipped)
		}
		for _, k := range set.keys {
			if len(fitting(k.public)) == 0 || len(k.algs) == 0 {
				t.Fatalf("%T with %v", k.public, k.algs)
			}
		}
		set.verify(tok)
	})
}

func FuzzClaims(f *testing.F) {
	f.Add([]byte(`{"iss":"i","exp":1e309,"a":{"b":[1,"x",null]},"scope":"a b"}`))
	f.Add([]byte(`{"exp":-1,"nbf":0.5,"aud":["a"]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := parseClaims(raw)
		if err == nil && (len(c.values) > maxClaims || c.size > maxClaimBytes) {
			t.Fatalf("%d claims, %d bytes", len(c.values), c.size)
		}
	})
}
