package route_test

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

func split(backends ...*waypoint.WeightedBackend) *waypoint.Rule {
	return &waypoint.Rule{Backends: backends}
}

// Each backend gets its share, whatever the weights are, and one of weight 0
// nothing.
func TestShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.Uint32Range(0, 1_000_000), 1, 16).Draw(t, "weights")
		pb, total := split(), 0.0
		for _, w := range weights {
			if rapid.IntRange(0, 3).Draw(t, "zero") == 0 {
				w = 0
			}
			pb.Backends = append(pb.Backends, backend("shop/a", w))
			total += float64(w)
		}
		f, problems := route.Compile(frontend(waypoint.RouteKind_ROUTE_KIND_HTTP, httpRoute("r", pb)))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		r := f.Match(route.Client{}, 80, get("/")).Rule
		if total == 0 {
			if b, reason := r.PickBackend(1); b != nil || reason == "" {
				t.Fatalf("%v %q of backends without weight", b, reason)
			}
			return
		}
		// Random numbers that are spread evenly hit each share to within one.
		const n = 4096
		counts := map[uint64]int{}
		for i := range uint64(n) {
			b, reason := r.PickBackend(i * (math.MaxUint64 / n))
			if reason != "" {
				t.Fatal(reason)
			}
			counts[b.ID]++
		}
		for _, b := range r.Backends {
			want := float64(b.Weight) / total * n
			if got := float64(counts[b.ID]); math.Abs(got-want) > 2 || b.Weight == 0 && got > 0 {
				t.Fatalf("weight %d of %v: %v of %d, want %v", b.Weight, total, got, n, want)
			}
		}
	})
}

// A backend that cannot be used costs its own share and no more.
func TestInvalidShare(t *testing.T) {
	bad := backend("shop/b", 1)
	bad.Backend.Invalid = "Service shop/b does not exist; create it"
	odd := backend("shop/c", 1)
	odd.Filters = []*waypoint.Filter{{}}
	unspoken := backend("shop/d", 1)
	unspoken.Backend.Protocol = 99
	r, problems := compileRule(t, split(backend("shop/a", 1), bad, odd, unspoken))
	if r.Invalid != "" || len(problems) != 2 {
		t.Fatal(r.Invalid, problems)
	}
	for i, want := range []string{"", "does not exist", "backends[2].filters[0]: has no type", "backends[3].backend.protocol: 99 is not known"} {
		b, reason := r.PickBackend(uint64(i)*(math.MaxUint64/4) + 1000)
		if b != &r.Backends[i] || !strings.Contains(reason, want) || (want == "") != (reason == "") {
			t.Errorf("share %d: %v, %q", i, b, reason)
		}
	}
}

func TestNoBackend(t *testing.T) {
	for name, pb := range map[string]*waypoint.Rule{
		"has no backend":                  split(),
		"has only backends of weight 0":   split(backend("shop/a", 0)),
		"1000001 is more than 1000000":    split(backend("shop/a", 1_000_001)),
		"cannot be carried out as it was": {Invalid: "cannot be carried out as it was", Backends: split(backend("shop/a", 1)).Backends},
	} {
		r, _ := compileRule(t, pb)
		if b, reason := r.PickBackend(7); b != nil || !strings.Contains(reason, name) || !strings.Contains(reason, "HTTPRoute shop/r rule 0") {
			t.Errorf("%s: %v, %q", name, b, reason)
		}
		if a := r.Assign(get("/"), 7, time.Time{}); a.Backend != nil || a.Reason == "" {
			t.Errorf("%s: assigned %+v", name, a)
		}
	}
}

func sticky(s *waypoint.SessionPersistence, weights ...uint32) *waypoint.Rule {
	r := split(backend("shop/v1", weights[0]), backend("shop/v2", weights[1]))
	r.SessionPersistence = s
	return r
}

func cookieSession() *waypoint.SessionPersistence {
	return &waypoint.SessionPersistence{
		Name: "session", Type: &waypoint.SessionPersistence_Cookie{Cookie: &waypoint.CookieSession{}},
		IdleTimeout: durationpb.New(10 * time.Minute), AbsoluteTimeout: durationpb.New(time.Hour),
	}
}

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// A client stays with the backend and the endpoint that it was given, until the
// session is over or the backend is.
func TestSession(t *testing.T) {
	r, problems := compileRule(t, sticky(cookieSession(), 1, 1))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	first := r.Assign(get("/"), 0, noon)
	if first.Pinned || first.Backend != &r.Backends[0] {
		t.Fatalf("%+v", first)
	}
	endpoint := route.HashEndpoint("pod-1")
	token, send := first.NextToken(r.Session, endpoint, noon)
	var answer message.Fields
	r.Session.Write(token, noon, true, &answer)
	if got, want := answer.Get("set-cookie"), "session="+token.String()+"; Path=/; HttpOnly; SameSite=Lax; Secure"; !send || got != want {
		t.Fatalf("%v %q, want %q", send, got, want)
	}
	back := get("/", message.Field{Name: "cookie", Value: "a=b; session=" + token.String()})
	for range 20 {
		a := r.Assign(back, rand.Uint64(), noon.Add(time.Minute/2))
		if !a.Pinned || a.Backend != &r.Backends[0] || a.Endpoint != endpoint {
			t.Fatalf("%+v", a)
		}
		if _, send := a.NextToken(r.Session, endpoint, noon.Add(time.Minute/2)); send {
			t.Fatal("a token that is fresh is sent again")
		}
	}
	a := r.Assign(back, math.MaxUint64, noon.Add(2*time.Minute))
	next, send := a.NextToken(r.Session, endpoint, noon.Add(2*time.Minute))
	if !send || !next.Created.Equal(noon) || !next.Used.Equal(noon.Add(2*time.Minute)) {
		t.Fatalf("%v %+v", send, next)
	}
	if moved, send := a.NextToken(r.Session, route.HashEndpoint("pod-2"), noon.Add(time.Second)); !send || moved.Endpoint == endpoint {
		t.Fatal("another endpoint is not told")
	}
	if a := r.Assign(back, math.MaxUint64, noon.Add(10*time.Minute)); a.Pinned || a.Backend != &r.Backends[1] {
		t.Fatalf("idle for too long: %+v", a)
	}
	// The same backend at another place in the rule, and then without weight.
	swapped, _ := compileRule(t, &waypoint.Rule{Backends: split(backend("shop/v2", 1), backend("shop/v1", 1)).Backends, SessionPersistence: cookieSession()})
	if a := swapped.Assign(back, 0, noon); !a.Pinned || a.Backend.Service != "shop/v1" {
		t.Fatalf("%+v", a)
	}
	gone, _ := compileRule(t, sticky(cookieSession(), 0, 1))
	if a := gone.Assign(back, 0, noon); a.Pinned || a.Backend.Service != "shop/v2" {
		t.Fatalf("%+v", a)
	}
}

func TestSessionByHeader(t *testing.T) {
	r, problems := compileRule(t, sticky(&waypoint.SessionPersistence{Name: "X-Session", Type: &waypoint.SessionPersistence_Header{}}, 1, 1))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	token, _ := r.Assign(get("/"), math.MaxUint64, noon).NextToken(r.Session, 7, noon)
	var answer message.Fields
	r.Session.Write(token, noon, false, &answer)
	a := r.Assign(get("/", answer...), 0, noon.Add(1000*time.Hour))
	if !a.Pinned || a.Backend != &r.Backends[1] || a.Endpoint != 7 {
		t.Fatalf("%+v", a)
	}
}

func TestPermanentCookie(t *testing.T) {
	s := cookieSession()
	s.GetCookie().Permanent, s.GetCookie().Path = true, "/cart"
	r, problems := compileRule(t, sticky(s, 1, 1))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	var answer message.Fields
	r.Session.Write(route.Token{Backend: 1, Created: noon}, noon.Add(20*time.Minute), false, &answer)
	if got := answer.Get("set-cookie"); !strings.HasSuffix(got, "; Path=/cart; HttpOnly; SameSite=Lax; Max-Age=2400") {
		t.Error(got)
	}
	s.AbsoluteTimeout = nil
	s.GetCookie().Path = "/; Domain=x"
	s.Name = "a b"
	if r, problems := compileRule(t, sticky(s, 1, 1)); r.Invalid == "" || len(problems) != 3 {
		t.Error(r.Invalid, problems)
	}
}

// Whatever a client sends as its session, it is one of ours to the letter, or
// none; and what is made is read.
func FuzzToken(f *testing.F) {
	f.Add(route.Token{Backend: 1, Endpoint: 2, Created: noon, Used: noon}.String(), uint64(3), uint64(4), int64(5))
	f.Add("", uint64(0), uint64(0), int64(0))
	f.Fuzz(func(t *testing.T, text string, backend, endpoint uint64, created int64) {
		if token, ok := route.ParseToken(text); ok && token.String() != text {
			// Times that no clock shows are forgotten.
			again, ok := route.ParseToken(token.String())
			if !ok || again != token || !token.Created.IsZero() && !token.Used.IsZero() {
				t.Fatalf("%q is read as %+v", text, token)
			}
		}
		made := route.Token{Backend: backend, Endpoint: endpoint, Used: noon}
		if created > 0 && created < 253402300799 {
			made.Created = time.Unix(created, 0).UTC()
		}
		if got, ok := route.ParseToken(made.String()); !ok || got != made {
			t.Fatalf("%+v is read as %+v %v", made, got, ok)
		}
	})
}

func BenchmarkPickBackend(b *testing.B) {
	pb := split()
	for range 16 {
		pb.Backends = append(pb.Backends, backend("shop/a", 7))
	}
	r, _ := compileRule(b, pb)
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		r.PickBackend(i * 0x9e3779b97f4a7c15)
	}
}

func BenchmarkAssignSession(b *testing.B) {
	r, _ := compileRule(b, sticky(cookieSession(), 1, 1))
	token, _ := r.Assign(get("/"), 0, noon).NextToken(r.Session, 1, noon)
	req := get("/", message.Field{Name: "cookie", Value: "a=b; session=" + token.String()})
	b.ReportAllocs()
	for b.Loop() {
		r.Assign(req, 0, noon)
	}
}
