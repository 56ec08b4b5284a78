package jwt

import (
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
)

func BenchmarkCheck(b *testing.B) {
	m := New(Config{Registerer: prometheus.NewRegistry()})
	v := verifier(b, m, basic(func(p *waypoint.JWTProvider) { p.Forward = true }))
	out := verifier(b, m, basic(func(p *waypoint.JWTProvider) {
		p.OutputClaims = []*waypoint.ClaimHeader{{Header: "x-sub", Claim: "sub"}}
	}))
	token := sign(jose.RS256, rsaKey(), "rsa", fine(map[string]any{"groups": []string{"a", "b", "c"}, "email": "alice@example.com"}))
	b.Run("no token", func(b *testing.B) {
		req := request()
		b.ReportAllocs()
		for b.Loop() {
			v.Check(b.Context(), req)
		}
	})
	b.Run("known", func(b *testing.B) {
		req := withToken(token)
		b.ReportAllocs()
		for b.Loop() {
			if !v.Check(b.Context(), req).Allowed {
				b.Fatal("refused")
			}
		}
	})
	b.Run("known, everybody", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			req := withToken(token)
			for pb.Next() {
				v.Check(b.Context(), req)
			}
		})
	})
	b.Run("known, token removed and a claim written", func(b *testing.B) {
		base := message.Fields{{Name: "accept", Value: "*/*"}, {Name: "authorization", Value: "Bearer " + token}, {Name: "user-agent", Value: "curl/8"}}
		req := &message.Request{Fields: make(message.Fields, 0, 8)}
		b.ReportAllocs()
		for b.Loop() {
			req.Fields = append(req.Fields[:0], base...)
			out.Check(b.Context(), req)
		}
	})
	for alg, key := range map[jose.SignatureAlgorithm]any{jose.RS256: rsaKey(), jose.ES256: p256Key(), jose.EdDSA: edKey()} {
		b.Run("not known, "+string(alg), func(b *testing.B) {
			set := must(parseKeys([]byte(allKeys())))
			raw := sign(alg, key, "", fine())
			b.ReportAllocs()
			for b.Loop() {
				tok, _ := parseToken(raw)
				if by, _ := set.verify(tok); by == nil {
					b.Fatal("refused")
				}
			}
		})
	}
}

func TestNoAllocation(t *testing.T) {
	m := New(Config{Registerer: prometheus.NewRegistry()})
	v := verifier(t, m, basic(func(p *waypoint.JWTProvider) { p.Forward = true }))
	known, none := withToken(good()), request()
	for name, req := range map[string]*message.Request{"known": known, "none": none} {
		v.Check(t.Context(), req)
		if n := testing.AllocsPerRun(100, func() { v.Check(t.Context(), req) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
