package proxy

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/http1"
	"github.com/ambit-mesh/ambit/internal/http2"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/internal/frontend"
)

// serve finds out what the client speaks and serves it.
func (d *downstream) serve(ctx context.Context) {
	if d.key == "" {
		d.serveOpaque(ctx, nil)
		return
	}
	e := d.proxy.cfg.Frontends.Key(d.key)
	if e == nil {
		return // unbound in this moment; the client sees the connection end
	}
	port, _ := e.Routes.Port(d.port)
	switch kind, proto := port.Kind, port.Protocol; {
	case kind == waypoint.RouteKind_ROUTE_KIND_TCP:
		d.serveOpaque(ctx, nil)
	case kind == waypoint.RouteKind_ROUTE_KIND_TLS, kind == waypoint.RouteKind_ROUTE_KIND_UNSPECIFIED && proto == waypoint.Protocol_PROTOCOL_TLS:
		d.serveTLS(ctx, nil)
	case kind != waypoint.RouteKind_ROUTE_KIND_UNSPECIFIED, proto == waypoint.Protocol_PROTOCOL_HTTP1, proto == waypoint.Protocol_PROTOCOL_HTTP2:
		d.serveHTTP(ctx)
	case proto == waypoint.Protocol_PROTOCOL_TCP:
		d.serveOpaque(ctx, nil)
	case d.needsRequests(e):
		d.serveHTTP(ctx)
	default:
		d.serveUnknown(ctx)
	}
}

// needsRequests reports whether something is asked for that only requests can be
// given: tokens, limits, filters. On such a port a client that speaks something
// else, or makes its HTTP look so, must not get around it.
func (d *downstream) needsRequests(e *frontend.Entry) bool {
	r := e.Routes.MatchConnection(d.routeClient(), d.port, "").Rule
	return e.Tokens != nil || r != nil && len(r.Filters)+len(r.RateLimits)+len(r.Faults) > 0
}

// firstWord is how long a client whose protocol is not known may be silent before
// its connection is passed on, so that a server that speaks first can.
const firstWord = 10 * time.Millisecond

// serveUnknown tells the protocol from the client's first bytes. One that says
// nothing is connected to the service as it is: if the service speaks first, that
// is how it goes on.
func (d *downstream) serveUnknown(ctx context.Context) {
	kind, first, err := sniff(d.conn, time.Now().Add(firstWord))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		d.serveSilent(ctx)
		return
	}
	if err != nil && err != io.EOF {
		return
	}
	d.serveDialect(ctx, kind, first)
}

func (d *downstream) serveDialect(ctx context.Context, kind dialect, first []byte) {
	switch kind {
	case http1Dialect, http2Dialect:
		d.serveMessages(ctx, kind, first)
	case tlsDialect:
		d.serveTLS(ctx, first)
	default:
		d.serveOpaque(ctx, first)
	}
}

// serveHTTP serves a client that must speak HTTP.
func (d *downstream) serveHTTP(ctx context.Context) {
	kind, first, err := sniff(d.conn, time.Now().Add(idle))
	if err != nil {
		return
	}
	if kind != http2Dialect {
		kind = http1Dialect // what is not HTTP at all gets a 400
	}
	d.serveMessages(ctx, kind, first)
}

// drainer is what a client holds on to until it is asked to go elsewhere: a connection
// or a session of datagrams. Drain may be called more than once.
type drainer interface{ Drain() }

// server is a codec's side of a client's connection.
type server interface {
	drainer
	Run(ctx context.Context) error
}

func (d *downstream) serveMessages(ctx context.Context, kind dialect, first []byte) {
	conn := &prefixed{StreamConn: d.conn, rest: first}
	var s server
	if kind == http2Dialect {
		cfg := d.proxy.cfg.HTTP2
		cfg.Rejected = d.rejected
		s = http2.NewServerConn(conn, cfg, message.HandlerFunc(d.exchange))
	} else {
		cfg := d.proxy.cfg.HTTP1
		cfg.Rejected = d.rejected
		s = http1.NewServerConn(conn, cfg, message.HandlerFunc(d.exchange))
	}
	d.server = s
	forget := d.proxy.remember(s, d.key)
	defer forget()
	_ = s.Run(ctx)
}

// remember keeps what goes to the service of a key to be drained.
func (p *Proxy) remember(s drainer, key string) (forget func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clients[s] = key
	if p.draining || p.unbound(key) {
		s.Drain()
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.clients, s)
	}
}

// Drain asks clients to end their connections after the request under way, and ends
// sessions of datagrams that are at rest.
func (p *Proxy) Drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draining = true
	for s := range p.clients {
		s.Drain()
	}
}

// release drains what goes to services that are no longer bound: their clients come
// back by another way.
func (p *Proxy) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s, key := range p.clients {
		if p.unbound(key) {
			s.Drain()
		}
	}
}

// unbound reports whether clients of a service come by another way from now on. What
// goes to a workload has no key.
func (p *Proxy) unbound(key string) bool {
	if key == "" {
		return false
	}
	e := p.cfg.Frontends.Key(key)
	return e == nil || e.Leaving()
}
