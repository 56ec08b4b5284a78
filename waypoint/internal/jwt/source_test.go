package jwt

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ambit-mesh/ambit/apis/waypoint"
)

// bubble runs a test with a manager whose keys come from an endpoint, in time that
// is free.
func bubble(t *testing.T, test func(t *testing.T, m *Manager, e *endpoint)) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{keys: jwks(publicJWK("p256", p256Key()))}
		m := New(Config{Fetcher: e, Registerer: prometheus.NewRegistry()})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		test(t, m, e)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func longLived() string { return good(map[string]any{"exp": at(240 * time.Hour)}) }

func rotated(kid string) string {
	return sign(jose.RS256, rsaKey(), kid, fine(map[string]any{"exp": at(240 * time.Hour)}))
}

// The first requests wait for the keys, together, for one fetch.
func TestFirstFetch(t *testing.T) {
	bubble(t, func(t *testing.T, m *Manager, e *endpoint) {
		e.takes = time.Second
		v := verifier(t, m, remote())
		began := time.Now()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if r := v.Check(t.Context(), withToken(good())); !r.Allowed {
					t.Errorf("%+v", r)
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took != time.Second || e.count() != 1 {
			t.Errorf("%d fetches, %v", e.count(), took)
		}
	})
}

// Requests whose keys have never come are refused with 503; nobody waits longer
// than a fetch may take; requests without a token are not concerned.
func TestNeverFetched(t *testing.T) {
	for name, e := range map[string]*endpoint{"error": {err: errors.New("connection refused")}, "hangs": {takes: time.Hour}, "gibberish": {keys: "<html>"}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, m *Manager, own *endpoint) {
				own.err, own.takes, own.keys = e.err, e.takes, e.keys
				v := verifier(t, m, remote())
				for range 3 {
					began := time.Now()
					r := v.Check(t.Context(), withToken(good()))
					if r.Allowed || r.Status != 503 || !strings.Contains(r.Reason, uri) || len(r.Fields) > 0 || r.Policy != "shop/tokens" {
						t.Errorf("%+v", r)
					}
					if took := time.Since(began); took > 5*time.Second {
						t.Errorf("waited %v", took)
					}
					if r := v.Check(t.Context(), request()); !r.Allowed {
						t.Errorf("%+v", r)
					}
				}
				// It is tried again by itself.
				own.set(jwks(publicJWK("p256", p256Key())), nil)
				own.mu.Lock()
				own.takes = 0
				own.mu.Unlock()
				time.Sleep(20 * time.Second)
				if r := v.Check(t.Context(), withToken(good())); !r.Allowed {
					t.Errorf("later: %+v", r)
				}
			})
		})
	}
}

// Nobody who has gone away is waited with.
func TestCanceled(t *testing.T) {
	bubble(t, func(t *testing.T, m *Manager, e *endpoint) {
		e.takes = time.Hour
		v := verifier(t, m, remote())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if r := v.Check(ctx, withToken(good())); r.Allowed || time.Since(began) != time.Second {
			t.Errorf("%+v after %v", r, time.Since(began))
		}
	})
}

// Keys are fetched again before they are stale, and no request waits for that.
func TestRefresh(t *testing.T) {
	bubble(t, func(t *testing.T, m *Manager, e *endpoint) {
		v := verifier(t, m, remote(func(p *waypoint.JWTProvider) { p.CacheDuration = durationpb.New(100 * time.Second) }))
		token := longLived()
		v.Check(t.Context(), withToken(token))
		time.Sleep(79 * time.Second)
		if n := e.count(); n != 1 {
			t.Errorf("%d fetches after 79 s", n)
		}
		e.mu.Lock()
		e.takes = 3 * time.Second
		e.mu.Unlock()
		time.Sleep(2 * time.Second)
		began := time.Now()
		if r := v.Check(t.Context(), withToken(token)); !r.Allowed || time.Since(began) != 0 {
			t.Errorf("%+v after %v", r, time.Since(began))
		}
		if n := e.count(); n != 2 {
			t.Errorf("%d fetches after 81 s", n)
		}
	})
}

// A rotation is noticed by the first token with the new key, and a forger cannot
// use the waypoint against the issuer.
func TestRotation(t *testing.T) {
	bubble(t, func(t *testing.T, m *Manager, e *endpoint) {
		v := verifier(t, m, remote())
		v.Check(t.Context(), withToken(good()))
		time.Sleep(10 * time.Second)
		e.set(jwks(publicJWK("p256", p256Key()), publicJWK("new", rsaKey())), nil)
		for _, token := range []string{rotated("new"), good()} {
			if r := v.Check(t.Context(), withToken(token)); !r.Allowed {
				t.Errorf("%+v", r)
			}
		}
		if e.count() != 2 {
			t.Errorf("%d fetches, want one more", e.count())
		}
		before := e.count()
		began := time.Now()
		for i := range 1000 {
			if r := v.Check(t.Context(), withToken(rotated(fmt.Sprint(i%10)))); r.Allowed || r.Status != 401 {
				t.Fatalf("%+v", r)
			}
			time.Sleep(10 * time.Millisecond)
		}
		// 10 s and one at most every 5 s.
		if n := e.count() - before; n > 3 || n < 1 {
			t.Errorf("%d fetches in %v for keys that are not there", n, time.Since(began))
		}
	})
}

// A token whose key is gone is not accepted any more, though it was verified before.
func TestKeyRemoved(t *testing.T) {
	bubble(t, func(t *testing.T, m *Manager, e *endpoint) {
		v := verifier(t, m, remote())
		token := longLived()
		for range 2 {
			if r := v.Check(t.Context(), withToken(token)); !r.Allowed {
				t.Fatalf("%+v", r)
			}
		}
		if hits := testutil.ToFloat64(m.metrics.hit); hits != 1 {
			t.Errorf("%v hits", hits)
		}
		e.set(jwks(publicJWK("new", rsaKey())), nil)
		time.Sleep(5 * time.Minute)
		if r := v.Check(t.Context(), withToken(token)); r.Allowed || r.Status != 401 {
			t.Errorf("accepted with a key that is gone: %+v", r)
		}
		// The same kid with another key is another key.
		e.set(jwks(publicJWK("p256", p384Key())), nil)
		time.Sleep(5 * time.Minute)
		if r := v.Check(t.Context(), withToken(token)); r.Allowed {
			t.Errorf("accepted with another key: %+v", r)
		}
		// An issuer that has revoked all keys is believed.
		e.set(jwks(publicJWK("p256", p256Key())), nil)
		time.Sleep(5 * time.Minute)
		if r := v.Check(t.Context(), withToken(token)); !r.Allowed {
			t.Errorf("the key is back: %+v", r)
		}
		e.set(`{"keys":[]}`, nil)
		time.Sleep(5 * time.Minute)
		if r := v.Check(t.Context(), withToken(token)); r.Allowed || r.Status != 401 {
			t.Errorf("accepted without any key: %+v", r)
		}
	})
}

// The last good keys are used while the endpoint is away.
func TestOutage(t *testing.T) {
	bubble(t, func(t *testing.T, m *Manager, e *endpoint) {
		v := verifier(t, m, remote())
		token := longLived()
		v.Check(t.Context(), withToken(token))
		for _, away := range []struct {
			keys string
			err  error
		}{{"", errors.New("connection refused")}, {"<html>", nil}, {"{}", nil}} {
			e.set(away.keys, away.err)
			before := e.count()
			time.Sleep(24 * time.Hour)
			fresh := good()
			began := time.Now()
			for _, tok := range []string{token, fresh} {
				if r := v.Check(t.Context(), withToken(tok)); !r.Allowed || time.Since(began) > 0 {
					t.Errorf("%q: %+v after %v", away.keys, r, time.Since(began))
				}
			}
			// With backoff: once a minute.
			if n := e.count() - before; n < 24*60 || n > 24*60+20 {
				t.Errorf("%d fetches in a day", n)
			}
		}
		if n := testutil.ToFloat64(m.metrics.fetches.WithLabelValues(uri, "error")); n < 1000 {
			t.Errorf("%v failures counted", n)
		}
		e.set(jwks(publicJWK("new", rsaKey())), nil)
		time.Sleep(time.Minute)
		if r := v.Check(t.Context(), withToken(rotated("new"))); !r.Allowed {
			t.Errorf("after the outage: %+v", r)
		}
	})
}

// A change of the configuration keeps keys and tokens, and what is judged by it is
// judged anew.
func TestConfigUpdate(t *testing.T) {
	bubble(t, func(t *testing.T, m *Manager, e *endpoint) {
		verifier(t, m, remote()).Check(t.Context(), withToken(good()))
		token := good()
		v := verifier(t, m, remote())
		v.Check(t.Context(), withToken(token))
		other := remote(func(p *waypoint.JWTProvider) { p.Audiences = []string{"bank"} })
		v2, errs := m.Set("shop/other", []*waypoint.JWTProvider{other})
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		if r := v2.Check(t.Context(), withToken(token)); r.Allowed {
			t.Errorf("another provider's verdict was used: %+v", r)
		}
		// A token that was verified with the key of one provider is nothing to one
		// with other keys.
		v3, _ := m.Set("shop/third", []*waypoint.JWTProvider{basic(func(p *waypoint.JWTProvider) {
			p.Keys = &waypoint.JWTProvider_Jwks{Jwks: jwks(publicJWK("rsa", rsaKey()))}
		})})
		if r := v3.Check(t.Context(), withToken(token)); r.Allowed {
			t.Errorf("accepted by a provider without the key: %+v", r)
		}
		// Old verifiers go on while their requests do.
		m.Delete("shop/cart")
		m.Delete("shop/other")
		synctest.Wait()
		if r := v.Check(t.Context(), withToken(token)); !r.Allowed {
			t.Errorf("%+v", r)
		}
		if n := e.count(); n != 1 {
			t.Errorf("%d fetches", n)
		}
		time.Sleep(time.Hour)
		if n := e.count(); n != 1 {
			t.Errorf("%d fetches for nobody", n)
		}
	})
}

// The shortest time of those who share a URI counts.
func TestSharedInterval(t *testing.T) {
	bubble(t, func(t *testing.T, m *Manager, e *endpoint) {
		verifier(t, m, remote(func(p *waypoint.JWTProvider) { p.CacheDuration = durationpb.New(time.Hour) }),
			remote(func(p *waypoint.JWTProvider) { p.CacheDuration = durationpb.New(time.Minute) }))
		time.Sleep(10 * time.Minute)
		if n := e.count(); n < 10 {
			t.Errorf("%d fetches in 10 minutes", n)
		}
	})
}

// A token that expires while it is remembered is not accepted.
func TestCachedExpiry(t *testing.T) {
	bubble(t, func(t *testing.T, m *Manager, _ *endpoint) {
		v := verifier(t, m, remote())
		token := good(map[string]any{"exp": at(10 * time.Second)})
		v.Check(t.Context(), withToken(token))
		time.Sleep(69 * time.Second)
		if r := v.Check(t.Context(), withToken(token)); !r.Allowed {
			t.Errorf("within leeway: %+v", r)
		}
		time.Sleep(3 * time.Second)
		if r := v.Check(t.Context(), withToken(token)); r.Allowed {
			t.Errorf("%+v", r)
		}
	})
}

// A real endpoint: rotation, removal, and answers that are no keys.
func TestHTTP(t *testing.T) {
	var keys atomic.Pointer[string]
	set := func(s string) { keys.Store(&s) }
	set(jwks(publicJWK("p256", p256Key())))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/keys":
			fmt.Fprint(w, *keys.Load())
		case "/moved":
			http.Redirect(w, r, "/keys", http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/huge":
			fmt.Fprint(w, strings.Repeat(" ", maxSetBytes+1))
		default:
			http.NotFound(w, r)
		}
	}))
	defer srv.Close()
	m := New(Config{MinInterval: time.Nanosecond})
	run(t, m)
	v := verifier(t, m, remote(), basic(func(p *waypoint.JWTProvider) {
		p.Issuer, p.Keys = "https://local", &waypoint.JWTProvider_JwksUri{JwksUri: srv.URL + "/keys"}
	}))
	token := func(alg jose.SignatureAlgorithm, key any, kid string) string {
		return sign(alg, key, kid, fine(map[string]any{"iss": "https://local"}))
	}
	if r := v.Check(t.Context(), withToken(token(jose.ES256, p256Key(), "p256"))); !r.Allowed {
		t.Errorf("%+v", r)
	}
	set(jwks(publicJWK("rsa", rsaKey())))
	if r := v.Check(t.Context(), withToken(token(jose.RS256, rsaKey(), "rsa"))); !r.Allowed {
		t.Errorf("rotated: %+v", r)
	}
	if r := v.Check(t.Context(), withToken(token(jose.ES256, p256Key(), "p256"))); r.Allowed {
		t.Errorf("removed: %+v", r)
	}
	set("<html>")
	if r := v.Check(t.Context(), withToken(token(jose.RS256, rsaKey(), "rsa"))); !r.Allowed {
		t.Errorf("gibberish: %+v", r)
	}
	f := NewHTTPFetcher(nil)
	if b, err := f.Fetch(t.Context(), srv.URL+"/moved"); err != nil || string(b) != "<html>" {
		t.Errorf("%q %v", b, err)
	}
	for _, path := range []string{"/loop", "/huge", "/none"} {
		if b, err := f.Fetch(t.Context(), srv.URL+path); err == nil {
			t.Errorf("%s: %d bytes", path, len(b))
		}
	}
}

func TestNoDowngrade(t *testing.T) {
	to := httptest.NewRequest(http.MethodGet, "http://plain/", http.NoBody)
	from := httptest.NewRequest(http.MethodGet, "https://secure/", http.NoBody)
	if err := redirect(to, []*http.Request{from}); !errors.Is(err, errDowngrade) {
		t.Error(err)
	}
	if err := redirect(from, []*http.Request{to}); err != nil {
		t.Error(err)
	}
}
