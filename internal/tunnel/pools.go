package tunnel

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/masque"
)

// Pools are the connections of a proxy to its peers, over TCP and over QUIC.
type Pools struct {
	H2 *hbone.Pool[Key]
	H3 *hbone3.Pool[Key]
}

// Session is one of datagrams that a peer has accepted.
type Session struct {
	Packets
	Stream Stream
	// Transport is H2 or H3.
	Transport string
	Peer      tls.ConnectionState
}

// OpenUDP opens a session of datagrams with target at the peer of a key: over HTTP/3 if
// that is wanted and gets through, or else over HTTP/2.
func (p Pools) OpenUDP(ctx context.Context, key Key, http3 bool, target netip.AddrPort, fields []hbone.Field) (*Session, error) {
	fields = append(fields[:len(fields):len(fields)], hbone.Field{Name: masque.CapsuleField, Value: masque.CapsuleValue})
	req := hbone.Request{Authority: key.Addr.String(), Protocol: masque.Protocol, Path: masque.Path(target), Fields: fields}
	if http3 {
		req3 := req
		req3.Fields = append(fields[:len(fields):len(fields)], hbone.Field{Name: masque.BatchField, Value: masque.BatchValue})
		s, resp, cc, err := p.H3.Open(ctx, key, req3)
		if err == nil {
			return &Session{&overQUIC{s: s, batch: resp.Get(masque.BatchField) == masque.BatchValue}, s, H3, cc.PeerState()}, nil
		}
		if !hbone3.Unavailable(err) {
			return nil, err
		}
	}
	s, _, cc, err := p.H2.Open(ctx, key, req)
	if err != nil {
		return nil, err
	}
	return &Session{newOverHTTP2(s.Conn(cc.LocalAddr(), net.TCPAddrFromAddrPort(key.Addr))), s, H2, cc.PeerState()}, nil
}
