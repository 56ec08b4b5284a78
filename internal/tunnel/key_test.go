package tunnel_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/testkit"
	"github.com/ambit-mesh/ambit/internal/tunnel"
)

func TestKey(t *testing.T) {
	at := netip.MustParseAddrPort("10.0.0.1:15008")
	id := func(sa string) identity.ID {
		return identity.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: sa}
	}
	for _, peers := range [][]identity.ID{nil, {id("cart")}, {id("cart"), id("wp"), id("web")}} {
		k := tunnel.KeyOf(at, "u", peers)
		if got, err := k.Peers(); err != nil || !slices.Equal(got, peers) {
			t.Errorf("%v: %v, %v", peers, got, err)
		}
		if k != tunnel.KeyOf(at, "u", peers) || k == tunnel.KeyOf(at, "v", peers) || k == tunnel.KeyOf(at, "u", append(slices.Clone(peers), id("other"))) {
			t.Errorf("%v: the key is not that of just this", peers)
		}
	}
}

func TestKeyTLS(t *testing.T) {
	cert := testkit.NewCA(t).Workload("shop", "web")
	own := func(context.Context) (*identity.Certificate, error) { return cert, nil }
	k := tunnel.KeyOf(netip.MustParseAddrPort("10.0.0.1:15008"), "u", []identity.ID{cert.ID})
	for transport, alpn := range map[string]string{tunnel.H2: "h2", tunnel.H3: "h3"} {
		cfg, err := k.TLS(t.Context(), own, transport)
		if err != nil || !slices.Contains(cfg.NextProtos, alpn) {
			t.Errorf("%s: %+v, %v", transport, cfg, err)
		}
	}
	// Nobody in particular is nobody at all.
	if cfg, err := tunnel.KeyOf(k.Addr, "u", nil).TLS(t.Context(), own, tunnel.H2); err == nil {
		t.Errorf("without an identity to expect: %+v", cfg)
	}
	away := errors.New("no certificate yet")
	if _, err := k.TLS(t.Context(), func(context.Context) (*identity.Certificate, error) { return nil, away }, tunnel.H2); !errors.Is(err, away) {
		t.Errorf("without a certificate: %v", err)
	}
}
