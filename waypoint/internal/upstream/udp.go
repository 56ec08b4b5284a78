package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/masque"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// Packets is a way for the datagrams of one session. Send and Receive are each for one
// goroutine at a time; Close may be called by any, and ends Receive.
type Packets interface {
	// Send takes a datagram; more says that others follow at once. nil is none. A
	// *DropError is of the datagram, every other one the end of the way.
	Send(p []byte, more bool) error
	// Receive calls f for each datagram, as masque.Stream.Receive does, until the way
	// ends: nil when the other end has ended it.
	Receive(f func(p []byte, more bool)) error
	Close() error
}

// DropError is a datagram that was not sent.
type DropError struct {
	// Reason as it is counted.
	Reason string
	Err    error
}

// Error says why.
func (e *DropError) Error() string { return "datagram dropped: " + e.Err.Error() }

// Unwrap gives the cause.
func (e *DropError) Unwrap() error { return e.Err }

// ConnectUDP opens a session of datagrams to an endpoint for a client. It is Connect
// otherwise.
func (d *Dialer) ConnectUDP(ctx context.Context, svc *wds.Service, ep wds.Endpoint, client *Client, timeout time.Duration) (Packets, trace.Context, error) {
	if timeout == 0 {
		timeout = d.Timeout
	}
	at := ep.Address(client.Address.Addr().Is4() || !client.Address.IsValid())
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	way, via, err := d.connectUDP(limited, svc, ep, at, client)
	if err == nil {
		return way, via, nil
	}
	if ctx.Err() == nil && limited.Err() != nil {
		err = fmt.Errorf("not within %s: %w", timeout, err)
	}
	return nil, trace.Context{}, &ConnectError{Endpoint: fmt.Sprintf("%s (%s/%s)", at, ep.Workload.Namespace, ep.Workload.Name), Err: err}
}

var errOutsideUDP = errors.New("hosts outside have no UDP ports")

func (d *Dialer) connectUDP(ctx context.Context, svc *wds.Service, ep wds.Endpoint, at netip.AddrPort, client *Client) (Packets, trace.Context, error) {
	switch {
	case svc != nil && svc.External:
		return nil, trace.Context{}, errOutsideUDP
	case !ep.Workload.HBONE:
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at))
		if err != nil {
			return nil, trace.Context{}, err
		}
		return &plainPackets{c}, trace.Context{}, nil
	case !ep.Workload.UDP:
		return nil, trace.Context{}, wds.ErrNoUDP
	}
	via := trace.Begin()
	tunnel := netip.AddrPortFrom(at.Addr(), tunnelPort)
	key := tunnelKey{addr: tunnel, uid: ep.Workload.UID, peers: joinIDs(ep.Peers(svc))}
	s, _, cc, err := d.pool.Open(ctx, key, hbone.Request{
		Authority: tunnel.String(), Protocol: masque.Protocol, Path: masque.Path(at),
		Fields: append(client.fields(via), hbone.Field{Name: masque.CapsuleField, Value: masque.CapsuleValue}),
	})
	if err != nil {
		return nil, via, err
	}
	conn := s.Conn(cc.LocalAddr(), net.TCPAddrFromAddrPort(at))
	return &tunnelled{masque.NewStream(conn), conn}, via, nil
}

// tunnelled carries datagrams to an endpoint in the mesh.
type tunnelled struct {
	*masque.Stream
	conn *hbone.StreamConn
}

// Close implements Packets.
func (t *tunnelled) Close() error { return t.conn.Close() }

// plainPackets carries datagrams to an endpoint that is not in the mesh.
type plainPackets struct{ c *net.UDPConn }

// datagrams are buffers for one datagram of any size.
var datagrams = sync.Pool{New: func() any { b := make([]byte, masque.MaxUDP); return &b }}

// Send implements Packets. That nobody listens now is nobody's failure: it is UDP.
func (p *plainPackets) Send(b []byte, _ bool) error {
	if b == nil {
		return nil
	}
	_, err := p.c.Write(b)
	switch {
	case err == nil, unheard(err):
		return nil
	case errors.Is(err, syscall.EMSGSIZE):
		return &DropError{"too_large", err}
	case errors.Is(err, syscall.ENOBUFS):
		return &DropError{"not_delivered", err}
	}
	return err
}

// Receive implements Packets.
func (p *plainPackets) Receive(f func(b []byte, more bool)) error {
	buf := datagrams.Get().(*[]byte)
	defer datagrams.Put(buf)
	for {
		n, err := p.c.Read(*buf)
		if err == nil {
			f((*buf)[:n], false)
		} else if !unheard(err) {
			return err
		}
	}
}

// Close implements Packets.
func (p *plainPackets) Close() error { return p.c.Close() }

// unheard reports an ICMP error: what was sent has reached nobody.
func unheard(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}
