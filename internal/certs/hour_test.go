package certs_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

// pair is a client and a server whose certificates a manager renews.
type pair struct {
	t              *testing.T
	client, server *certs.Source
}

// connect shakes hands, both sides with what they have now.
func (p *pair) connect() (client, server *tls.Conn, err error) {
	ctx := p.t.Context()
	cert, err := p.client.Get(ctx)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := cert.ClientConfig(p.server.ID())
	if err != nil {
		return nil, nil, err
	}
	near, far := net.Pipe()
	client = tls.Client(near, cfg)
	server = tls.Server(far, identity.ServerConfig(func() (*identity.Certificate, error) { return p.server.Get(ctx) }))
	accepted := make(chan error, 1)
	go func() {
		err := server.HandshakeContext(ctx)
		if err != nil {
			_ = far.Close()
		}
		accepted <- err
	}()
	err = client.HandshakeContext(ctx)
	if err != nil {
		_ = near.Close()
	}
	return client, server, errors.Join(err, <-accepted)
}

// exchange sends a byte to and fro.
func exchange(a, b *tls.Conn) error {
	for _, way := range [][2]*tls.Conn{{a, b}, {b, a}} {
		sent := make(chan error, 1)
		go func() {
			_, err := way[0].Write([]byte("x"))
			sent <- err
		}()
		_, err := io.ReadFull(way[1], make([]byte, 1))
		if err := errors.Join(err, <-sent); err != nil {
			return err
		}
	}
	return nil
}

// load makes connection after connection for a while, and uses an old one, too.
func (p *pair) load(what string, d time.Duration, old [2]*tls.Conn) {
	p.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); <-time.After(3 * time.Second) {
		client, server, err := p.connect()
		if err == nil {
			err = errors.Join(exchange(client, server), exchange(old[0], old[1]))
			_ = client.NetConn().Close()
		}
		if err != nil {
			p.t.Fatalf("%s, at %s: %v", what, time.Now().Format(time.TimeOnly), err)
		}
	}
}

// An hour of certificates that live for 20 seconds: renewed some 350 times, with the
// authority away again and again until just before they expire, and with its root
// replaced, no connection fails.
func TestAnHourOfRenewals(t *testing.T) {
	const life = 20 * time.Second
	run(t, life, func(t *testing.T, a *authority, m *certs.Manager) {
		server, release := m.Use(web)
		defer release()
		id := web
		id.ServiceAccount = "client"
		client, releaseToo := m.Use(id)
		defer releaseToo()
		p := &pair{t: t, client: client, server: server}
		one, other, err := p.connect()
		if err != nil {
			t.Fatal(err)
		}
		defer one.NetConn().Close()
		old := [2]*tls.Conn{one, other}

		p.load("renewals", 30*time.Minute, old)
		for i := range 30 {
			// Renewal is due at an age of 9 to 11 s: who was about to has a second left
			// when the authority is back.
			a.set(true)
			p.load(fmt.Sprintf("outage %d", i), 8*time.Second, old)
			a.set(false)
			p.load(fmt.Sprintf("after outage %d", i), 22*time.Second, old)
		}
		next := testkit.NewCA(t)
		both := []*x509.Certificate{a.ca.Root, next.Root}
		a.rotate(a.ca, both)
		p.load("new root introduced", life, old)
		a.rotate(next, both)
		p.load("new root issues", life, old)
		a.rotate(next, both[1:])
		p.load("old root gone", 15*time.Minute-2*life, old)
		if _, issued := a.counts(); issued < 600 {
			t.Errorf("%d certificates were issued in an hour", issued)
		}
	})
}
