package revocation_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/quic-go/quic-go"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/revocation"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newChecker(t *testing.T) (*revocation.Checker, *prometheus.Registry, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	r := prometheus.NewRegistry()
	c := revocation.New(r, zap.New(core))
	t.Cleanup(c.Close)
	return c, r, logs
}

// tomorrow is when lists of tests are followed by others.
func tomorrow() time.Time { return time.Now().Add(24 * time.Hour) }

// end is one end of tunnels, with its own view of what is revoked.
type end struct {
	cert    *identity.Certificate
	checker *revocation.Checker
}

func newEnd(t *testing.T, ca *testkit.CA, account string) *end {
	c, _, _ := newChecker(t)
	return &end{cert: ca.Workload("shop", account).Guarded(c.Check), checker: c}
}

// connect sets up a tunnel, and gives what is closed when each end's has ended.
type connect func(t *testing.T, server, client *end) (serverDone, clientDone <-chan struct{}, err error)

// overTCP and overQUIC run a server for one connection.
func overTCP(t *testing.T, server, client *end) (<-chan struct{}, <-chan struct{}, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); _ = l.Close(); wg.Wait() })
	serverDone, clientDone := make(chan struct{}), make(chan struct{})
	wg.Go(func() {
		defer close(serverDone)
		sock, err := l.Accept()
		if err != nil {
			return
		}
		sc, err := hbone.NewServerConn(ctx, sock, identity.ServerConfig(func() (*identity.Certificate, error) { return server.cert, nil }),
			hbone.Config{Watch: server.checker.Watch}, func(_ context.Context, in *hbone.Incoming) { in.Refuse(404, "") })
		if err == nil {
			_ = sc.Run(ctx)
		}
	})
	cfg, err := client.cert.ClientConfig(server.cert.ID)
	if err != nil {
		t.Fatal(err)
	}
	sock, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	cc, err := hbone.NewClientConn(ctx, sock, cfg, hbone.Config{Watch: client.checker.Watch})
	if err != nil {
		return serverDone, nil, err
	}
	wg.Go(func() { defer close(clientDone); _ = cc.Run(ctx) })
	return serverDone, clientDone, nil
}

func overQUIC(t *testing.T, server, client *end) (<-chan struct{}, <-chan struct{}, error) {
	listen := func() *net.UDPConn {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	sock, own := listen(), listen()
	addr := sock.LocalAddr().(*net.UDPAddr).AddrPort()
	s, err := hbone3.NewServer(sock, identity.QUICServerConfig(func() (*identity.Certificate, error) { return server.cert, nil }),
		hbone3.Config{Watch: server.checker.Watch}, func(_ context.Context, in *hbone3.Incoming) { in.Refuse(404, "") })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	tr := &quic.Transport{Conn: own}
	t.Cleanup(func() { cancel(); wg.Wait(); _ = tr.Close(); _ = own.Close() })
	wg.Go(func() { _ = s.Run(ctx) })
	cfg, err := client.cert.QUICClientConfig(server.cert.ID)
	if err != nil {
		t.Fatal(err)
	}
	cc, err := hbone3.Dial(ctx, tr, addr, cfg, hbone3.Config{Watch: client.checker.Watch, HandshakeTimeout: time.Minute})
	if err != nil {
		return nil, nil, err
	}
	return cc.Done(), cc.Done(), nil
}

func ended(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	testkit.Until(t, what+" ends", func() bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	})
}

// A peer whose certificate is revoked is refused by either end, over TCP and QUIC, and
// one that is connected is cut; others are not touched.
func TestHandshakes(t *testing.T) {
	for name, dial := range map[string]connect{"tcp": overTCP, "quic": overQUIC} {
		t.Run(name, func(t *testing.T) {
			ca := testkit.NewCA(t)
			t.Run("nobody is revoked", func(t *testing.T) {
				server, client := newEnd(t, ca, "server"), newEnd(t, ca, "client")
				if err := errors.Join(server.checker.Set([][]byte{ca.Revoke(tomorrow(), ca.Workload("shop", "other").Leaf())}), client.checker.Set(nil)); err != nil {
					t.Fatal(err)
				}
				if _, _, err := dial(t, server, client); err != nil {
					t.Error(err)
				}
			})
			t.Run("the server is", func(t *testing.T) {
				server, client := newEnd(t, ca, "server"), newEnd(t, ca, "client")
				if err := client.checker.Set([][]byte{ca.Revoke(tomorrow(), server.cert.Leaf())}); err != nil {
					t.Fatal(err)
				}
				if _, _, err := dial(t, server, client); err == nil || !strings.Contains(err.Error(), "is revoked") {
					t.Errorf("connected: %v", err)
				}
			})
			t.Run("the client is", func(t *testing.T) {
				server, client := newEnd(t, ca, "server"), newEnd(t, ca, "client")
				if err := server.checker.Set([][]byte{ca.Revoke(tomorrow(), client.cert.Leaf())}); err != nil {
					t.Fatal(err)
				}
				// By TLS 1.3 a client hears of it after its side of the handshake.
				_, done, err := dial(t, server, client)
				if err == nil {
					ended(t, "the connection of a revoked client", done)
				}
			})
			t.Run("while connected", func(t *testing.T) {
				server, client := newEnd(t, ca, "server"), newEnd(t, ca, "client")
				serverDone, clientDone, err := dial(t, server, client)
				if err != nil {
					t.Fatal(err)
				}
				if err := server.checker.Set([][]byte{ca.Revoke(tomorrow(), ca.Workload("shop", "other").Leaf())}); err != nil {
					t.Fatal(err)
				}
				select {
				case <-clientDone:
					t.Fatal("cut for another's certificate")
				default:
				}
				if err := server.checker.Set([][]byte{ca.Revoke(tomorrow(), client.cert.Leaf())}); err != nil {
					t.Fatal(err)
				}
				ended(t, "the server's side", serverDone)
				ended(t, "the client's side", clientDone)
			})
		})
	}
}

// A list that is overdue stays in force, and that is told; one that cannot be read
// changes nothing; no list lets everybody in again.
func TestLists(t *testing.T) {
	ca := testkit.NewCA(t)
	c, r, logs := newChecker(t)
	bad := ca.Workload("shop", "bad")
	next := time.Now().Add(-time.Hour)
	if err := c.Set([][]byte{ca.Revoke(next, bad.Leaf())}); err != nil {
		t.Fatal(err)
	}
	var revoked *revocation.RevokedError
	if err := c.Check(bad.Chain); !errors.As(err, &revoked) || revoked.Certificate != bad.Leaf() {
		t.Errorf("with an overdue list: %v", err)
	}
	testkit.Until(t, "the log says that the list is overdue", func() bool { return logs.FilterMessageSnippet("overdue").Len() == 1 })
	want := strings.NewReader("# HELP ambit_revoked_handshakes_total Handshakes that were refused because the peer's certificate, or one above it, is revoked.\n" +
		"# TYPE ambit_revoked_handshakes_total counter\nambit_revoked_handshakes_total 1\n")
	if err := testutil.GatherAndCompare(r, want, "ambit_revoked_handshakes_total"); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(r, "ambit_revocation_list_soonest_expiry_seconds", "ambit_revoked_certificates"); n != 2 || err != nil {
		t.Error(n, err)
	}
	if err := c.Set([][]byte{[]byte("rubbish")}); err == nil || c.Check(bad.Chain) == nil {
		t.Errorf("rubbish has replaced a list: %v", err)
	}
	other := testkit.NewCA(t) // of the same name, and with lists of its own serials
	if err := c.Set([][]byte{other.Revoke(tomorrow())}); err != nil || c.Check(bad.Chain) != nil {
		t.Errorf("%v, %v", err, c.Check(bad.Chain))
	}
	cut := make(chan error, 1)
	if err := c.Set([][]byte{ca.Revoke(tomorrow(), bad.Leaf())}); err != nil {
		t.Fatal(err)
	}
	c.Watch(bad.Chain, func(err error) { cut <- err })()
	if err := <-cut; !errors.As(err, &revoked) {
		t.Errorf("%v", err)
	}
}

// What a control plane takes from a file: lists of its authorities, signed, and
// complete.
func TestLoad(t *testing.T) {
	ca, stranger := testkit.NewCA(t), testkit.NewCA(t)
	leaf := ca.Workload("shop", "bad").Leaf()
	text := func(der ...[]byte) (out []byte) {
		for _, d := range der {
			out = append(out, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: d})...)
		}
		return out
	}
	good := ca.Revoke(tomorrow(), leaf)
	for name, tc := range map[string]struct {
		text []byte
		want string // of the error, "" for none
	}{
		"good":         {text(good), ""},
		"empty":        {nil, "no PEM revocation list"},
		"certificate":  {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw}), "want X509 CRL"},
		"cut short":    {text(good)[:200], "cut short"},
		"another's":    {text(stranger.Revoke(tomorrow())), "is not signed by an authority"},
		"two":          {text(good, ca.Revoke(tomorrow())), "two revocation lists"},
		"rubbish":      {text([]byte("rubbish")), "revocation list"},
		"critical":     {text(withExtension(t, true)), "critical and not known"},
		"an extension": {text(withExtension(t, false)), "is not signed by"},
	} {
		t.Run(name, func(t *testing.T) {
			lists, err := revocation.Load(tc.text, []*x509.Certificate{ca.Root})
			if tc.want == "" && (err != nil || len(lists) != 1) || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("%d lists, %v; want %q", len(lists), err, tc.want)
			}
		})
	}
}

// withExtension gives a list of some authority with a delta's extension.
func withExtension(t *testing.T, critical bool) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuer := &x509.Certificate{Subject: pkix.Name{CommonName: "x"}, SubjectKeyId: []byte{1}, KeyUsage: x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: tomorrow(),
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: critical, Value: []byte{2, 1, 1}}},
	}, issuer, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
