package ca_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ambit-mesh/ambit/controlplane/internal/ca"
	"github.com/ambit-mesh/ambit/controlplane/internal/nodes"
)

// holder is a workload that renews at half life, as ztunnel does.
type holder struct {
	t           *testing.T
	service     *ca.Service
	leaf        *x509.Certificate
	inter, root *x509.CertPool
}

func (h *holder) renewIfDue() {
	h.t.Helper()
	if h.leaf != nil && time.Now().Before(h.leaf.NotBefore.Add(h.leaf.NotAfter.Sub(h.leaf.NotBefore)/2)) {
		return
	}
	resp, err := h.service.CreateCertificate(nodes.NewContext(h.t.Context(), nodes.Caller{Node: "n1"}), ask(shop, csr(h.t, newKey(h.t), &x509.CertificateRequest{}), 0))
	if err != nil {
		h.t.Fatal(err)
	}
	h.leaf, h.inter, h.root = parseChain(h.t, resp.CertChain)
}

// trusts verifies a peer with the roots that h knows.
func (h *holder) trusts(peer *holder) error {
	_, err := peer.leaf.Verify(x509.VerifyOptions{Roots: h.root, Intermediates: peer.inter, CurrentTime: time.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err
}

func rotationConfig(dir string) ca.Config {
	cfg := config(dir)
	cfg.TTL = 10 * time.Second
	cfg.RotationOverlap = 12 * time.Second
	cfg.IntermediateLife = 24 * time.Hour
	cfg.RootLife = 240 * time.Hour
	return cfg
}

// start runs a and gives what stops it.
func start(t *testing.T, a *ca.Authority) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func rootCount(a *ca.Authority) int { return len(a.Status().Roots) }

func TestRotationKeepsEveryPairTalking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := rotationConfig(t.TempDir())
		a := newAuthority(t, cfg)
		stop := start(t, a)
		s := ca.NewService(a, onlyShop{})
		holders := make([]*holder, 5)
		seen := map[string]bool{}
		for second := range 60 {
			if i := second; i < len(holders) {
				holders[i] = &holder{t: t, service: s} // one a second, so that renewals are spread
			}
			switch second {
			case 8:
				if err := a.Rotate(); err != nil {
					t.Fatal(err)
				}
				if err := a.Rotate(); !errors.Is(err, ca.ErrRotation) {
					t.Fatalf("second rotation: %v", err)
				}
			case 12, 28: // in each of the two middle phases
				stop()
				cfg.TTL = 5 * time.Second // shorter than what old certificates were given
				cfg.Metrics = nil
				a = newAuthority(t, cfg)
				s = ca.NewService(a, onlyShop{})
				for _, h := range holders {
					h.service = s
				}
				stop = start(t, a)
			}
			seen[a.Status().Phase] = true
			for _, h := range holders {
				if h != nil {
					h.renewIfDue()
				}
			}
			for _, h := range holders {
				for _, peer := range holders {
					if h == nil || peer == nil {
						continue
					}
					if err := h.trusts(peer); err != nil {
						t.Fatalf("second %d, phase %s: %v", second, a.Status().Phase, err)
					}
				}
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		stop()
		if !seen["introducing"] || !seen["retiring"] || a.Status().Phase != "steady" || rootCount(a) != 1 {
			t.Fatalf("phases seen %v, now %+v", seen, a.Status())
		}
	})
}

func TestRotationPhases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := rotationConfig(t.TempDir())
		reg := prometheus.NewRegistry()
		cfg.Metrics = reg
		a := newAuthority(t, cfg)
		defer start(t, a)()
		firstRoot := a.Status().Roots[0].Serial
		issuer := a.Status().IssuerSerial
		if err := a.Rotate(); err != nil {
			t.Fatal(err)
		}
		if st := a.Status(); len(st.Roots) != 2 || st.IssuerSerial != issuer || st.Roots[0].Serial != firstRoot {
			t.Fatalf("introducing: %+v", st)
		}
		time.Sleep(cfg.RotationOverlap - time.Millisecond)
		synctest.Wait()
		if st := a.Status(); st.Phase != "introducing" {
			t.Fatalf("too early: %+v", st)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if st := a.Status(); st.Phase != "retiring" || len(st.Roots) != 2 || st.IssuerSerial == issuer || st.Roots[1].Serial != firstRoot {
			t.Fatalf("retiring: %+v", st)
		}
		time.Sleep(cfg.TTL + cfg.TTL/10)
		synctest.Wait()
		if st := a.Status(); st.Phase != "steady" || len(st.Roots) != 1 || st.Roots[0].Serial == firstRoot {
			t.Fatalf("steady again: %+v", st)
		}
		if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
			t.Errorf("metrics: %v %v", problems, err)
		}
	})
}

func TestWornCertificatesAreReplacedUnasked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := rotationConfig(t.TempDir())
		cfg.IntermediateLife = 40 * time.Second
		cfg.RootLife = 200 * time.Second
		a := newAuthority(t, cfg)
		defer start(t, a)()
		h := &holder{t: t, service: ca.NewService(a, onlyShop{})}
		issuers, roots := map[string]bool{}, map[string]bool{}
		for range 600 {
			st := a.Status()
			issuers[st.IssuerSerial], roots[st.Roots[0].Serial] = true, true
			h.renewIfDue()
			if err := h.trusts(h); err != nil {
				t.Fatalf("%s: %v", st.Phase, err)
			}
			if h.leaf.NotAfter.After(st.IssuerExpires) && len(st.Roots) == 1 {
				t.Fatalf("leaf until %s outlives its issuer until %s", h.leaf.NotAfter, st.IssuerExpires)
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if len(roots) < 3 || len(issuers) < 10 {
			t.Errorf("%d roots, %d issuers in ten minutes", len(roots), len(issuers))
		}
	})
}

func TestServingCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := rotationConfig(t.TempDir())
		a := newAuthority(t, cfg)
		defer start(t, a)()
		get := func() *x509.Certificate {
			cert, err := a.ServerTLS().GetCertificate(&tls.ClientHelloInfo{})
			if err != nil {
				t.Fatal(err)
			}
			roots, inter := x509.NewCertPool(), x509.NewCertPool()
			roots.AppendCertsFromPEM([]byte(a.Bundle()))
			c, err := x509.ParseCertificate(cert.Certificate[1])
			if err != nil {
				t.Fatal(err)
			}
			inter.AddCert(c)
			for _, name := range cfg.ServingNames {
				if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: inter, CurrentTime: time.Now()}); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			return cert.Leaf
		}
		first := get()
		if !get().Equal(first) {
			t.Error("a new certificate for each handshake")
		}
		time.Sleep(cfg.TTL/2 + time.Second)
		second := get()
		if second.Equal(first) {
			t.Error("not renewed at half life")
		}
		if err := a.Rotate(); err != nil {
			t.Fatal(err)
		}
		for range 30 {
			get()
			time.Sleep(time.Second)
			synctest.Wait()
		}
	})
}
