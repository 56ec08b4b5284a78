package certs_test

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

var web = identity.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "web"}

// authority issues certificates of the given life, or fails while down is set.
type authority struct {
	ca   *testkit.CA
	life time.Duration

	mu     sync.Mutex
	roots  []*x509.Certificate // published; that of ca when nil
	down   bool
	issued int
	asked  int
}

// rotate has ca issue from now on, and roots trusted.
func (a *authority) rotate(ca *testkit.CA, roots []*x509.Certificate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ca, a.roots = ca, roots
}

func (a *authority) Issue(_ context.Context, id identity.ID) (*identity.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked++
	if a.down {
		return nil, errors.New("authority is away")
	}
	a.issued++
	now := time.Now()
	key, leaf := a.ca.Issue(id, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now, now.Add(a.life) })
	roots := a.roots
	if roots == nil {
		roots = []*x509.Certificate{a.ca.Root}
	}
	return identity.NewCertificate(id, key, []*x509.Certificate{leaf}, roots, now)
}

func (a *authority) set(down bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.down = down
}

func (a *authority) counts() (asked, issued int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked, a.issued
}

// run tests f with a running manager and a clock that jumps.
func run(t *testing.T, life time.Duration, f func(t *testing.T, a *authority, m *certs.Manager)) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{ca: testkit.NewCA(t), life: life}
		m := certs.NewManager(a, zap.NewNop(), nil)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		synctest.Wait()
		f(t, a, m)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestRenewsAtHalfLife(t *testing.T) {
	run(t, 10*time.Hour, func(t *testing.T, a *authority, m *certs.Manager) {
		s, release := m.Use(web)
		defer release()
		first, err := s.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Hour)
		if c, _ := s.Get(t.Context()); c != first {
			t.Fatal("renewed long before half life")
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if c, _ := s.Get(t.Context()); c == first {
			t.Fatal("not renewed after half life")
		}
	})
}

func TestKeepsTheOldOneWhileTheAuthorityIsAway(t *testing.T) {
	run(t, 10*time.Hour, func(t *testing.T, a *authority, m *certs.Manager) {
		s, release := m.Use(web)
		defer release()
		first, err := s.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		a.set(true)
		time.Sleep(10*time.Hour - time.Minute)
		if c, err := s.Get(t.Context()); err != nil || c != first {
			t.Fatalf("just before expiry: %v, %v", c, err)
		}
		if asked, _ := a.counts(); asked < 50 || asked > 500 {
			t.Fatalf("asked %d times in five hours", asked)
		}
		time.Sleep(2 * time.Minute)
		if _, err := s.Get(t.Context()); !errors.Is(err, certs.ErrUnavailable) {
			t.Fatalf("after expiry: %v", err)
		}
		a.set(false)
		time.Sleep(4 * time.Minute)
		if _, err := s.Get(t.Context()); err != nil {
			t.Fatalf("after the authority came back: %v", err)
		}
	})
}

// The authority comes back just before a certificate of seconds expires.
func TestShortLivesSurviveShortOutages(t *testing.T) {
	run(t, 4*time.Second, func(t *testing.T, a *authority, m *certs.Manager) {
		s, release := m.Use(web)
		defer release()
		for range 100 {
			time.Sleep(1900 * time.Millisecond)
			a.set(true)
			time.Sleep(1400 * time.Millisecond)
			a.set(false)
			time.Sleep(300 * time.Millisecond)
			if _, err := s.Get(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestFirstCertificateIsAwaitedAndTheReasonTold(t *testing.T) {
	run(t, time.Hour, func(t *testing.T, a *authority, m *certs.Manager) {
		a.set(true)
		s, release := m.Use(web)
		defer release()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Get(ctx); !errors.Is(err, certs.ErrUnavailable) || !contains(err, "authority is away") || !contains(err, web.String()) {
			t.Fatalf("got %v", err)
		}
		a.set(false)
		if _, err := s.Get(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestForgetsWhatNobodyUses(t *testing.T) {
	run(t, time.Hour, func(t *testing.T, a *authority, m *certs.Manager) {
		s, release := m.Use(web)
		_, releaseToo := m.Use(web)
		if _, err := s.Get(t.Context()); err != nil {
			t.Fatal(err)
		}
		release()
		release() // once counts
		if len(m.Snapshot()) != 1 {
			t.Fatal("forgotten although somebody uses it")
		}
		releaseToo()
		if len(m.Snapshot()) != 0 {
			t.Fatal("not forgotten")
		}
		_, before := a.counts()
		time.Sleep(10 * time.Hour)
		if _, after := a.counts(); after != before {
			t.Fatal("renewed although nobody uses it")
		}
		if _, release := m.Use(web); true {
			defer release()
			synctest.Wait()
		}
		if _, after := a.counts(); after != before+1 {
			t.Fatal("not fetched anew")
		}
	})
}

func TestHundredsOfIdentitiesAtOnce(t *testing.T) {
	run(t, time.Hour, func(t *testing.T, a *authority, m *certs.Manager) {
		var sources []*certs.Source
		for i := range 200 {
			id := web
			id.ServiceAccount = string(rune('a'+i%26)) + string(rune('a'+i/26))
			s, release := m.Use(id)
			defer release()
			sources = append(sources, s)
		}
		for _, s := range sources {
			if c, err := s.Get(t.Context()); err != nil || c.ID != s.ID() {
				t.Fatalf("%v: %v", s.ID(), err)
			}
		}
	})
}

func contains(err error, part string) bool {
	return err != nil && strings.Contains(err.Error(), part)
}
