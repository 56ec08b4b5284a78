package hbone3

import (
	"context"
	"crypto/x509"
	"net"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// Config bounds what a connection may hold. The zero value of a field means its
// default.
type Config struct {
	// HandshakeTimeout bounds the set-up of a connection; 2 s. Where UDP is
	// blocked it is how long the first attempt takes.
	HandshakeTimeout time.Duration
	// MaxStreams is how many streams a peer may have open on a connection; 1024.
	MaxStreams int
	// IdleTimeout closes a connection that has had no stream for so long; 5 min.
	IdleTimeout time.Duration
	// Handshakes is how many handshakes a second a server begins with peers that
	// have not proved that they receive at their address; others have to do that
	// first (RFC 9000 section 8.1.2); 100.
	Handshakes int
	// ConnectionIDs and ResetKey are those of a server whose socket is shared with
	// other processes; random if nil.
	ConnectionIDs quic.ConnectionIDGenerator
	ResetKey      *quic.StatelessResetKey
	// MaxHandshakes is how many a server has under way at a time: a quarter of them
	// at most with peers that have not proved their address, and with peers of one
	// address; 512.
	MaxHandshakes int
	// OnTurned is told of each handshake that a server does not go on with, OnFailed
	// of each that failed for a reason; nil for nobody.
	OnTurned func(Turned)
	OnFailed func(from net.Addr, err error)
	// OnDropped is told of each payload that came and found no room, because who is to
	// take it does not keep up; nil for nobody.
	OnDropped func()
	// Watch is that of hbone.Config.
	Watch func(peer []*x509.Certificate, cut func(error)) (release func())
}

func (c Config) withDefaults() Config {
	if c.HandshakeTimeout == 0 {
		c.HandshakeTimeout = 2 * time.Second
	}
	if c.MaxStreams == 0 {
		c.MaxStreams = 1024
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = 5 * time.Minute
	}
	if c.Handshakes == 0 {
		c.Handshakes = 100
	}
	if c.MaxHandshakes == 0 {
		c.MaxHandshakes = 512
	}
	return c
}

const (
	// aliveInterval is how often something is sent, and deadTimeout how long
	// nothing comes before a peer is taken for dead.
	aliveInterval = 10 * time.Second
	deadTimeout   = 30 * time.Second
	// packetSize is what packets begin with. With the QUIC of an application inside,
	// whose first packets are mostly up to 1280 bytes, it has to be more than that; links of
	// 1400 bytes are still served. Path MTU discovery finds what is more.
	packetSize = 1350
	// maxHeaderBytes bounds a header block.
	maxHeaderBytes = 16 << 10
)

// watch keeps a connection in sight until it has ended.
func (c Config) watch(conn *quic.Conn) {
	if c.Watch == nil {
		return
	}
	release := c.Watch(conn.ConnectionState().TLS.PeerCertificates, func(err error) {
		_ = conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeRequestRejected), err.Error())
	})
	context.AfterFunc(conn.Context(), release)
}

func (c Config) quic() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout: c.HandshakeTimeout,
		MaxIdleTimeout:       deadTimeout,
		KeepAlivePeriod:      aliveInterval,
		MaxIncomingStreams:   int64(c.MaxStreams),
		// Control, and the two of the header compression.
		MaxIncomingUniStreams:      8,
		MaxStreamReceiveWindow:     4 << 20,
		MaxConnectionReceiveWindow: 16 << 20,
		InitialPacketSize:          packetSize,
		EnableDatagrams:            true,
	}
}
