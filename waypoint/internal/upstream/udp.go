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

	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/masque"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/tunnel"
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
	// Transport is what the tunnel speaks, h2 or h3; "" if there is none.
	Transport() string
}

// DropTooLarge is the reason of a datagram that the path does not take.
const DropTooLarge = "too_large"

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
	key := tunnel.KeyOf(netip.AddrPortFrom(at.Addr(), tunnelPort), ep.Workload.UID, ep.Peers(svc))
	pools := tunnel.Pools{H2: d.pool, H3: d.pool3}
	s, err := pools.OpenUDP(ctx, key, d.wantsQUIC(ep.Workload), at, client.fields(via))
	if err != nil {
		return nil, via, err
	}
	return &tunnelled{s}, via, nil
}

// tunnelled carries datagrams to an endpoint in the mesh.
type tunnelled struct{ s *tunnel.Session }

// Send implements Packets.
func (t *tunnelled) Send(p []byte, more bool) error {
	err := t.s.Send(p, more)
	var large *hbone3.TooLargeError
	if errors.As(err, &large) {
		return &DropError{DropTooLarge, err}
	}
	return err
}

// Receive implements Packets.
func (t *tunnelled) Receive(f func(p []byte, more bool)) error { return t.s.Receive(f) }

// Close implements Packets.
func (t *tunnelled) Close() error {
	t.s.Close(true)
	return nil
}

// Transport implements Packets.
func (t *tunnelled) Transport() string { return t.s.Transport }

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
		return &DropError{DropTooLarge, err}
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

// Transport implements Packets.
func (p *plainPackets) Transport() string { return "" }

// unheard reports an ICMP error: what was sent has reached nobody.
func unheard(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}
