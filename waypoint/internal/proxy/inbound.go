package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/masque"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/tunnel"
	"github.com/ambit-mesh/ambit/internal/wds"
	"github.com/ambit-mesh/ambit/waypoint/internal/frontend"
	"github.com/ambit-mesh/ambit/waypoint/internal/upstream"
)

// downstream is one connection of a client, which its tunnel has brought.
type downstream struct {
	proxy  *Proxy
	client upstream.Client
	source *wds.Workload // nil when not known
	// key is the service that was asked for, and port its port.
	key  string
	port uint16
	udp  bool // datagrams, and a UDP port
	// asked is the address that the client asked for; the zero value for a name.
	asked netip.AddrPort
	local netip.AddrPort // the waypoint's own, which the tunnel came to
	// tunnel is the context by which the client's node knows the connection.
	tunnel trace.Context
	conn   *hbone.StreamConn // nil of datagrams
	server server            // of requests; nil until they are served
	// transport is what the client's tunnel speaks, h2 or h3.
	transport string
}

// refusal is an answer to a CONNECT other than 200.
type refusal struct {
	status int
	kind   string // error type of Proxy-Status, RFC 9209 section 2.3
	reason string
	early  bool // the binding may be on its way to us
}

func (r *refusal) Error() string { return r.reason }

func refused(status int, kind, reason string) *refusal {
	return &refusal{status: status, kind: kind, reason: reason}
}

// ServeStream serves one CONNECT of a tunnel over HTTP/2.
func (p *Proxy) ServeStream(ctx context.Context, in *hbone.Incoming) {
	a := tunnel.AskHTTP2(in)
	d, err := p.admit(ctx, a)
	if err != nil {
		p.refuse(a, err)
		return
	}
	if d.udp {
		d.serveUDP(ctx, a)
		return
	}
	s, err := in.Accept()
	if err != nil {
		return
	}
	d.conn = s.Conn(in.LocalAddr, net.TCPAddrFromAddrPort(d.client.Address))
	defer func() { _ = d.conn.Close() }()
	d.serve(ctx)
}

// ServeDatagrams serves one CONNECT of a tunnel over HTTP/3, which is of datagrams: a
// waypoint says of itself that it takes nothing else there. ctx ends when the waypoint
// has stopped.
func (p *Proxy) ServeDatagrams(ctx context.Context, in *hbone3.Incoming) {
	a := tunnel.AskHTTP3(in)
	if a.Protocol != masque.Protocol {
		p.refuse(a, refused(501, "http_request_error", "over HTTP/3 a waypoint takes CONNECT-UDP alone: connections come over HTTP/2"))
		return
	}
	d, err := p.admit(ctx, a)
	if err != nil {
		p.refuse(a, err)
		return
	}
	d.serveUDP(ctx, a)
}

// refuse answers what is not even a connection to something.
func (p *Proxy) refuse(a *tunnel.Ask, err error) {
	var r *refusal
	if !errors.As(err, &r) {
		r = refused(503, "proxy_internal_error", err.Error())
	}
	p.cfg.Metrics.refusedStreams.WithLabelValues(r.kind).Inc()
	p.cfg.Log.Warn("connection refused", zap.Stringer("from", a.Remote), zap.String("authority", clip(a.Authority)), zap.String("reason", r.reason))
	a.Refuse(r.status, hbone.ProxyStatus(r.kind, r.reason))
}

// admit tells who asks for what.
func (p *Proxy) admit(ctx context.Context, in *tunnel.Ask) (*downstream, error) {
	id, err := identity.FromState(in.Peer)
	if err != nil {
		return nil, refused(400, "tls_certificate_error", err.Error())
	}
	from, _ := netip.ParseAddrPort(in.Remote.String())
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	d := &downstream{proxy: p, client: upstream.Client{ID: id, Address: from}, transport: in.Transport}
	d.local, _ = netip.ParseAddrPort(in.Local.String())
	d.tunnel, _ = trace.ParseTraceparent(in.Get("traceparent"))
	// The address tells the workload only if the certificate agrees.
	if w := p.cfg.Store.Workload(from.Addr()); w != nil && w.Identity() == id {
		d.source = w
	}
	authority := in.Authority
	if in.Protocol == masque.Protocol { // there the path says what is meant, and the authority where the waypoint is
		d.udp = true
		if authority, err = masque.ParsePath(in.Path); err != nil {
			return nil, refused(400, "http_request_error", err.Error())
		}
	}
	return d, d.awaitBinding(ctx, authority, in.Get(fieldService))
}

// bindingTime is how long a connection waits for the binding that has brought it:
// clients' nodes hear of it a moment earlier or later than the waypoint.
const bindingTime = 2 * time.Second

func (d *downstream) awaitBinding(ctx context.Context, authority, meant string) error {
	var late <-chan time.Time
	for {
		bound, known := d.proxy.cfg.Frontends.Changed(), d.proxy.cfg.Store.Changed()
		err := d.resolve(authority, meant)
		var r *refusal
		if !errors.As(err, &r) || !r.early {
			return err
		}
		if late == nil {
			timer := time.NewTimer(bindingTime)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-bound:
		case <-known:
		case <-late:
			return err
		case <-ctx.Done():
			return err
		}
	}
}

// resolve reads the authority: an address or the name of a service, and a port. meant
// is the key of the service, "" where the client's node has not said it.
func (d *downstream) resolve(authority, meant string) error {
	var e *frontend.Entry
	var host string
	at, err := netip.ParseAddrPort(authority)
	if err == nil {
		d.asked = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
		d.port = at.Port()
		e = d.proxy.cfg.Frontends.Address(at.Addr())
	} else {
		i := strings.LastIndexByte(authority, ':')
		port, perr := strconv.ParseUint(authority[i+1:], 10, 16)
		if i <= 0 || perr != nil || port == 0 || strings.ContainsAny(authority[:i], "[]:@/ ") {
			return refused(400, "http_request_error", "authority "+strconv.Quote(clip(authority))+": want host:port")
		}
		d.port, host = uint16(port), authority[:i]
		e = d.proxy.cfg.Frontends.Host(d.client.ID.Namespace, host)
	}
	if meant != "" {
		if e, err = d.resolveOutside(meant, host); err != nil {
			return err
		}
	}
	if e == nil {
		return d.resolveWorkload(authority)
	}
	d.key = e.Key
	if e.Config.GetExternal() {
		d.client.Host, d.client.To = host, d.asked
	}
	if d.udp {
		if _, ok := e.Routes.UDPPort(d.port); !ok {
			return refused(404, "destination_not_found", "service "+e.Key+" has no UDP port "+strconv.Itoa(int(d.port)))
		}
		return nil
	}
	if _, ok := e.Routes.Port(d.port); !ok {
		return refused(503, "destination_not_found", "service "+e.Key+" has no port "+strconv.Itoa(int(d.port)))
	}
	return nil
}

// resolveWorkload takes what was addressed as a workload's own address, if that
// workload has this waypoint.
func (d *downstream) resolveWorkload(authority string) error {
	if d.asked.IsValid() {
		if !d.udp && d.ownPort() {
			return nil
		}
		if w := d.proxy.cfg.Store.Workload(d.asked.Addr()); w != nil && d.proxy.serves(w.Waypoint) {
			return nil
		}
	}
	// The other end may have heard of the binding before us: it may try again.
	r := refused(503, "destination_not_found", "nothing at "+clip(authority)+" is bound to waypoint "+d.proxy.cfg.Gateway)
	r.early = true
	return r
}

// ownPort reports whether a port of the waypoint itself was asked for that is for
// others: whoever is in the mesh reaches its metrics through its tunnel port.
func (d *downstream) ownPort() bool {
	return d.asked.Addr() == d.local.Addr().Unmap() && slices.Contains(d.proxy.cfg.OwnPorts, d.asked.Port())
}

// serves reports whether g is this waypoint.
func (p *Proxy) serves(g *wds.Gateway) bool {
	self := p.cfg.Self()
	if g == nil || self == nil {
		return false
	}
	for _, m := range self.Services {
		if m.Service == g.Service {
			return true
		}
	}
	for _, a := range self.Addresses {
		if a == g.Address {
			return true
		}
	}
	return false
}

func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "..."
	}
	return s
}

// idle is how long a connection may do nothing before it has told its protocol.
const idle = time.Hour
