package tunnel

import (
	"context"
	"crypto/tls"
	"net/netip"
	"strings"

	"github.com/ambit-mesh/ambit/internal/identity"
)

// Key tells tunnel connections of a proxy apart. With the UID a reused address never meets
// the connection of the pod that had it before.
type Key struct {
	Addr  netip.AddrPort // of the tunnel port
	UID   string         // of the workload
	peers string         // identities of which one has to be there, joined
}

// KeyOf gives the key of a workload that has to prove to be one of peers.
func KeyOf(addr netip.AddrPort, uid string, peers []identity.ID) Key {
	k := Key{Addr: addr, UID: uid}
	if len(peers) == 1 {
		k.peers = peers[0].String()
		return k
	}
	var b strings.Builder
	for i, id := range peers {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(id.String())
	}
	k.peers = b.String()
	return k
}

// Peers gives the identities of which one has to be there.
func (k Key) Peers() ([]identity.ID, error) {
	var ids []identity.ID
	for f := range strings.FieldsSeq(k.peers) {
		id, err := identity.Parse(f)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// TLS gives the configuration of a client that has the certificate, for tunnels over TCP
// or over QUIC.
func (k Key) TLS(ctx context.Context, certificate func(context.Context) (*identity.Certificate, error), transport string) (*tls.Config, error) {
	cert, err := certificate(ctx)
	if err != nil {
		return nil, err
	}
	peers, err := k.Peers()
	if err != nil {
		return nil, err
	}
	if transport == H3 {
		return cert.QUICClientConfig(peers...)
	}
	return cert.ClientConfig(peers...)
}
