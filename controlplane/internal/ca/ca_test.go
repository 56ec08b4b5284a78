package ca_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	capb "github.com/ambit-mesh/ambit/apis/ca"
	"github.com/ambit-mesh/ambit/controlplane/internal/ca"
	"github.com/ambit-mesh/ambit/controlplane/internal/nodes"
	"github.com/ambit-mesh/ambit/internal/identity"
)

const (
	shop  = "spiffe://cluster.local/ns/shop/sa/cart"
	other = "spiffe://cluster.local/ns/bank/sa/vault"
)

var errNotThere = errors.New("node n1 runs no live pod of spiffe://cluster.local/ns/bank/sa/vault")

// onlyShop lets node n1 have the cart's identity.
type onlyShop struct{}

func (onlyShop) Authorize(caller nodes.Caller, id identity.ID) error {
	if w := caller.Workload; w != nil {
		if id.Namespace == w.Namespace && id.ServiceAccount == w.ServiceAccount {
			return nil
		}
		return errNotThere
	}
	if caller.Node == "n1" && id.Namespace == "shop" {
		return nil
	}
	return errNotThere
}

func config(dir string) ca.Config {
	return ca.Config{
		TrustDomain: "cluster.local", Dir: filepath.Join(dir, "ca"), BundleFile: filepath.Join(dir, "root-cert.pem"),
		ServingNames: []string{"ambit-controlplane.ambit-system.svc", "127.0.0.1"}, TTL: time.Hour,
	}
}

func newAuthority(t *testing.T, cfg ca.Config) *ca.Authority {
	t.Helper()
	a, err := ca.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func csr(t testing.TB, key crypto.Signer, tmpl *x509.CertificateRequest) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func uri(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func ask(id, csr string, seconds int64) *capb.IstioCertificateRequest {
	req := &capb.IstioCertificateRequest{Csr: csr, ValidityDuration: seconds}
	if id != "" {
		req.Metadata = &structpb.Struct{Fields: map[string]*structpb.Value{"ImpersonatedIdentity": structpb.NewStringValue(id)}}
	}
	return req
}

func parseChain(t testing.TB, chain []string) (leaf *x509.Certificate, intermediates, roots *x509.CertPool) {
	t.Helper()
	block, _ := pem.Decode([]byte(chain[0]))
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	intermediates, roots = x509.NewCertPool(), x509.NewCertPool()
	for _, c := range chain[1 : len(chain)-1] {
		intermediates.AppendCertsFromPEM([]byte(c))
	}
	if !roots.AppendCertsFromPEM([]byte(chain[len(chain)-1])) {
		t.Fatal("no roots in the answer")
	}
	return leaf, intermediates, roots
}

func TestGrant(t *testing.T) {
	a := newAuthority(t, config(t.TempDir()))
	s := ca.NewService(a, onlyShop{})
	ctx := nodes.NewContext(t.Context(), nodes.Caller{Node: "n1"})
	for name, tmpl := range map[string]*x509.CertificateRequest{
		"without SAN":  {},
		"with its SAN": {URIs: []*url.URL{uri(t, shop)}},
	} {
		t.Run(name, func(t *testing.T) {
			key := newKey(t)
			resp, err := s.CreateCertificate(ctx, ask(shop, csr(t, key, tmpl), 0))
			if err != nil {
				t.Fatal(err)
			}
			if len(resp.CertChain) != 3 {
				t.Fatalf("chain of %d, want leaf, intermediate, roots", len(resp.CertChain))
			}
			leaf, inter, roots := parseChain(t, resp.CertChain)
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
				t.Error(err)
			}
			if len(leaf.URIs) != 1 || leaf.URIs[0].String() != shop || len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses) != 0 {
				t.Errorf("names %v %v %v", leaf.URIs, leaf.DNSNames, leaf.IPAddresses)
			}
			if leaf.IsCA || !key.PublicKey.Equal(leaf.PublicKey) || leaf.Subject.String() != "" {
				t.Errorf("IsCA %v, subject %q", leaf.IsCA, leaf.Subject)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	cfg := config(t.TempDir())
	cfg.Log = zap.New(core)
	cfg.RateBurst = 100
	s := ca.NewService(newAuthority(t, cfg), onlyShop{})
	key := newKey(t)
	good := csr(t, key, &x509.CertificateRequest{})
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(good))
	tampered := append([]byte(nil), block.Bytes...)
	tampered[len(tampered)-1] ^= 1
	for name, tc := range map[string]struct {
		node   string
		req    *capb.IstioCertificateRequest
		code   codes.Code
		reason string
	}{
		"no credentials":           {"", ask(shop, good, 0), codes.Unauthenticated, "no_credentials"},
		"no identity":              {"n1", ask("", good, 0), codes.InvalidArgument, "no_identity"},
		"malformed identity":       {"n1", ask("cart", good, 0), codes.InvalidArgument, "malformed_identity"},
		"other trust domain":       {"n1", ask("spiffe://evil.example/ns/shop/sa/cart", good, 0), codes.PermissionDenied, "trust_domain"},
		"pod of another node":      {"n2", ask(shop, good, 0), codes.PermissionDenied, "not_authorized"},
		"identity not running":     {"n1", ask(other, good, 0), codes.PermissionDenied, "not_authorized"},
		"negative life":            {"n1", ask(shop, good, -1), codes.InvalidArgument, "validity"},
		"no PEM":                   {"n1", ask(shop, "hello", 0), codes.InvalidArgument, "csr_malformed"},
		"two CSRs":                 {"n1", ask(shop, good+good, 0), codes.InvalidArgument, "csr_malformed"},
		"bad signature":            {"n1", ask(shop, string(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: tampered})), 0), codes.InvalidArgument, "csr_malformed"},
		"P-384 key":                {"n1", ask(shop, csr(t, p384, &x509.CertificateRequest{}), 0), codes.InvalidArgument, "csr_key"},
		"foreign URI":              {"n1", ask(shop, csr(t, key, &x509.CertificateRequest{URIs: []*url.URL{uri(t, other)}}), 0), codes.InvalidArgument, "csr_foreign_san"},
		"own and foreign URI":      {"n1", ask(shop, csr(t, key, &x509.CertificateRequest{URIs: []*url.URL{uri(t, shop), uri(t, other)}}), 0), codes.InvalidArgument, "csr_foreign_san"},
		"DNS name":                 {"n1", ask(shop, csr(t, key, &x509.CertificateRequest{DNSNames: []string{"bank.example"}}), 0), codes.InvalidArgument, "csr_foreign_san"},
		"asks to become an issuer": {"n1", ask(shop, csr(t, key, &x509.CertificateRequest{ExtraExtensions: caExtension()}), 0), codes.InvalidArgument, "csr_authority"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			if tc.node != "" {
				ctx = nodes.NewContext(ctx, nodes.Caller{Node: tc.node})
			}
			logs.TakeAll()
			resp, err := s.CreateCertificate(ctx, tc.req)
			if resp != nil || status.Code(err) != tc.code {
				t.Fatalf("answer %v, %v; want %s", resp, err, tc.code)
			}
			entries := logs.FilterMessage("certificate refused").All()
			if len(entries) != 1 || entries[0].ContextMap()["reason"] != tc.reason || entries[0].ContextMap()["node"] != tc.node {
				t.Fatalf("audit log %+v; want reason %s", entries, tc.reason)
			}
		})
	}
}

// A workload is given its own identity alone, not what its node may have, and the
// audit log says who it was.
func TestWorkloadGetsItsOwnIdentityOnly(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	cfg := config(t.TempDir())
	cfg.Log = zap.New(core)
	s := ca.NewService(newAuthority(t, cfg), onlyShop{})
	waypoint := nodes.Caller{Node: "n1", Workload: &nodes.Workload{Namespace: "shop", Pod: "wp-1", UID: "u1", ServiceAccount: "wp", Gateway: "wp"}}
	ctx, request := nodes.NewContext(t.Context(), waypoint), csr(t, newKey(t), &x509.CertificateRequest{})
	if _, err := s.CreateCertificate(ctx, ask("spiffe://cluster.local/ns/shop/sa/wp", request, 0)); err != nil {
		t.Fatal(err)
	}
	for _, asked := range []string{shop, other} {
		logs.TakeAll()
		if _, err := s.CreateCertificate(ctx, ask(asked, request, 0)); status.Code(err) != codes.PermissionDenied {
			t.Fatalf("%s: %v", asked, err)
		}
		entries := logs.FilterMessage("certificate refused").All()
		if len(entries) != 1 || entries[0].ContextMap()["workload"] != "n1/shop/wp-1" || entries[0].ContextMap()["asked"] != asked {
			t.Fatalf("audit log %+v", entries)
		}
	}
}

func TestRateLimitIsPerNode(t *testing.T) {
	cfg := config(t.TempDir())
	now := time.Now()
	cfg.Now = func() time.Time { return now }
	cfg.RatePerNode, cfg.RateBurst = 1, 2
	s := ca.NewService(newAuthority(t, cfg), onlyShop{})
	key := newKey(t)
	call := func(node string) codes.Code {
		_, err := s.CreateCertificate(nodes.NewContext(t.Context(), nodes.Caller{Node: node}), ask(shop, csr(t, key, &x509.CertificateRequest{}), 0))
		return status.Code(err)
	}
	for i, want := range []codes.Code{codes.OK, codes.OK, codes.ResourceExhausted} {
		if got := call("n1"); got != want {
			t.Fatalf("call %d: %s, want %s", i, got, want)
		}
	}
	if got := call("n2"); got != codes.PermissionDenied {
		t.Errorf("another node: %s", got)
	}
	now = now.Add(time.Second)
	if got := call("n1"); got != codes.OK {
		t.Errorf("after a second: %s", got)
	}
}

func TestLifeIsClamped(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		ttl, minTTL time.Duration
		asked       int64
		want        time.Duration
	}{
		"none asked":          {time.Hour, 0, 0, time.Hour},
		"more than may be":    {time.Hour, 0, 1 << 62, time.Hour},
		"less than may be":    {24 * time.Hour, 0, 1, time.Hour},
		"in between":          {24 * time.Hour, 0, 7200, 2 * time.Hour},
		"seconds of life":     {4 * time.Second, time.Second, 3, 3 * time.Second},
		"seconds by default":  {4 * time.Second, 0, 0, 4 * time.Second},
		"not beyond the root": {time.Hour, 0, 0, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t.TempDir())
			cfg.TTL, cfg.MinTTL, cfg.Now = tc.ttl, tc.minTTL, func() time.Time { return now }
			s := ca.NewService(newAuthority(t, cfg), onlyShop{})
			resp, err := s.CreateCertificate(nodes.NewContext(t.Context(), nodes.Caller{Node: "n1"}), ask(shop, csr(t, newKey(t), &x509.CertificateRequest{}), tc.asked))
			if err != nil {
				t.Fatal(err)
			}
			leaf, _, _ := parseChain(t, resp.CertChain)
			if got := leaf.NotAfter.Sub(now); got != tc.want {
				t.Errorf("lives %s, want %s", got, tc.want)
			}
			// Half life must lie ahead, or its holder would renew at once and for ever.
			if half := leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2); !half.After(now) || leaf.NotBefore.After(now) {
				t.Errorf("not before %s, half life %s", leaf.NotBefore, half)
			}
		})
	}
}

func TestRestartKeepsAuthority(t *testing.T) {
	cfg := config(t.TempDir())
	first := newAuthority(t, cfg).Bundle()
	if second := newAuthority(t, cfg).Bundle(); second != first {
		t.Fatal("another root after a restart")
	}
	file, err := os.ReadFile(cfg.BundleFile)
	if err != nil || string(file) != first {
		t.Fatalf("bundle file differs: %v", err)
	}
	for path, want := range map[string]os.FileMode{
		cfg.Dir: 0o700 | os.ModeDir, filepath.Join(cfg.Dir, "authority.json"): 0o600, cfg.BundleFile: 0o644,
	} {
		info, err := os.Stat(path)
		if err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
}

func TestBadStateIsRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(dir, file string) error
		want  string
	}{
		"file open to all":      {func(_, f string) error { return os.Chmod(f, 0o644) }, "chmod 0600"},
		"directory open to all": {func(d, _ string) error { return os.Chmod(d, 0o755) }, "chmod 0700"},
		"cut short":             {func(_, f string) error { return os.Truncate(f, 200) }, "is damaged"},
		"empty":                 {func(_, f string) error { return os.Truncate(f, 0) }, "is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t.TempDir())
			newAuthority(t, cfg)
			if err := tc.spoil(cfg.Dir, filepath.Join(cfg.Dir, "authority.json")); err != nil {
				t.Fatal(err)
			}
			_, err := ca.New(cfg)
			assertError(t, err, tc.want)
		})
	}
}

func TestExpiredRootIsRefused(t *testing.T) {
	cfg := rotationConfig(t.TempDir())
	newAuthority(t, cfg)
	cfg.Now = func() time.Time { return time.Now().Add(cfg.RootLife) }
	_, err := ca.New(cfg)
	assertError(t, err, "the root expired at")
}

func TestBadConfigIsRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*ca.Config)
		want   string
	}{
		"trust domain":      {func(c *ca.Config) { c.TrustDomain = "Not A Domain" }, "trust domain"},
		"no serving name":   {func(c *ca.Config) { c.ServingNames = nil }, "ServingNames"},
		"life of no time":   {func(c *ca.Config) { c.TTL = time.Second }, "TTL 1s"},
		"overlap too short": {func(c *ca.Config) { c.RotationOverlap = time.Minute }, "RotationOverlap"},
		"root too short":    {func(c *ca.Config) { c.RootLife = 4 * time.Hour }, "RootLife"},
		"half a plugged CA": {func(c *ca.Config) { c.PluggedIn.Root = "x" }, "--ca-key"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t.TempDir())
			tc.change(&cfg)
			_, err := ca.New(cfg)
			assertError(t, err, tc.want)
		})
	}
}
