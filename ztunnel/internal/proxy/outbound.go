package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/tunnel"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// endpointTries is how many endpoints of a service are tried before the first byte.
const endpointTries = 3

func (p *Pod) serveOutbound(ctx context.Context, app *netns.Conn) {
	c := &connection{direction: Outbound, start: time.Now(), srcAddr: app.RemoteAddrPort(), srcID: p.source.ID()}
	// What setting up took of the stack is given back before the long wait.
	way, err := p.connect(ctx, app, c)
	p.settingUp.Done()
	if err == nil {
		err = way.carry(app, c)
	}
	if cut := c.cutReason(); cut != nil {
		err = cut
	}
	p.ended(app, c, err)
}

// way is how an outbound connection goes on: one of the two is set.
type way struct {
	stream tunnel.Stream
	up     *netns.Conn
	// done is called when the connection has ended; may be nil.
	done func()
}

func (w way) carry(app *netns.Conn, c *connection) error {
	if w.done != nil {
		defer w.done()
	}
	if w.stream != nil {
		return w.stream.Splice(app)
	}
	defer w.up.Close()
	return hbone.Relay(app, w.up, &c.toDst, &c.toSrc)
}

// ended closes the books of a connection. What failed is reset, so that the
// application does not take it for an orderly end.
func (p *Pod) ended(app *netns.Conn, c *connection, err error) {
	if err != nil {
		_ = app.SetLinger(0)
	}
	p.finished(c, err)
}

// connect decides where a connection goes and connects to there.
func (p *Pod) connect(ctx context.Context, app *netns.Conn, c *connection) (way, error) {
	dst, err := netns.OriginalDst(app)
	if err != nil {
		return way{}, fmt.Errorf("where was it going: %w", err)
	}
	c.dstAddr = dst
	if illegalPort(dst.Port()) && dst == app.LocalAddrPort() {
		return way{}, fmt.Errorf("port %d is the proxy's own: nothing was redirected", dst.Port())
	}
	if c.src, err = p.awaitWorkload(ctx); err != nil {
		return way{}, err
	}
	var tried []*wds.Workload
	for try := 1; ; try++ {
		route, err := p.awaitWaypoint(ctx, func() (wds.Route, error) { return p.route(c.src, dst, tried) })
		c.service, c.dst, c.target, c.waypoint = route.Service, route.Workload, route.Target, route.Waypoint
		if err != nil {
			return way{}, err
		}
		if route.Host != "" {
			c.host = route.Host
			if route.Connect, err = p.resolve(ctx, route.Host, route.Connect.Port(), dst.Addr().Is4(), try-1); err != nil {
				return way{}, fmt.Errorf("service %s: %w", route.Service.Key, err)
			}
			route.Target = route.Connect
			c.target = route.Target
		}
		if route, err = p.inside(c, route, tried); err != nil {
			return way{}, err
		}
		var w way
		began := time.Now()
		if route.Tunnel {
			w, err = p.tunnel(ctx, c, &route)
		} else {
			w, err = p.direct(ctx, c, &route)
		}
		if route.Workload != nil && ctx.Err() == nil && (err == nil || retryable(err)) {
			route.Workload.Reached(time.Since(began), err != nil)
		}
		if err == nil {
			p.conns.add(c)
			p.established(c)
			return w, nil
		}
		if !retryable(err) || try == endpointTries || route.Service == nil && !route.Waypoint || ctx.Err() != nil {
			return way{}, err
		}
		tried = append(tried, route.Workload)
	}
}

// inside takes a host outside for what it is when it turns out to be at an address of
// the mesh: nobody reaches the enrolled in plaintext, and what holds for the address is
// what would if the application had asked for it.
func (p *Pod) inside(c *connection, r wds.Route, tried []*wds.Workload) (wds.Route, error) {
	if r.Tunnel || r.Service == nil || !r.Service.External {
		return r, nil
	}
	what, ok := p.cfg.Store.Enrolled(r.Connect.Addr())
	if !ok {
		return r, nil
	}
	at := r.Connect
	r, err := p.cfg.Store.Route(c.src, at, tried...)
	c.service, c.dst, c.target, c.waypoint = r.Service, r.Workload, r.Target, r.Waypoint
	if err != nil {
		return r, fmt.Errorf("the host outside is %s, at %s: %w", what, at, err)
	}
	return r, nil
}

// route decides where a connection goes; an address that stands for a host below a
// wildcard means that host.
func (p *Pod) route(src *wds.Workload, dst netip.AddrPort, tried []*wds.Workload) (wds.Route, error) {
	host, service, ours := p.dns.Name(dst.Addr())
	switch {
	case !ours:
		return p.cfg.Store.Route(src, dst, tried...)
	case host == "":
		return wds.Route{}, fmt.Errorf("%s stands for no host any more: resolve the name again: %w", dst, wds.ErrNoEndpoint)
	}
	return p.cfg.Store.RouteHost(src, service, host, dst, tried...)
}

// awaitWaypoint gives a route, and waits a little for a waypoint that the service was bound
// to only now: the binding and what is known of the waypoint's pods come from different
// objects, and on a busy machine in the other order.
func (p *Pod) awaitWaypoint(ctx context.Context, route func() (wds.Route, error)) (wds.Route, error) {
	for {
		changed := p.cfg.Store.Changed()
		r, err := route()
		if !errors.Is(err, wds.ErrWaypoint) || r.Service == nil {
			return r, err
		}
		left := r.Service.AwaitWaypoint()
		if left == 0 {
			return r, err
		}
		timer := time.NewTimer(left)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return r, err
		}
	}
}

// retryable tells failures of an endpoint from answers about the connection.
func retryable(err error) bool {
	var refused *hbone.RefusedError
	return !errors.As(err, &refused) || refused.Status == 503
}

// tunnel opens a stream to the destination's tunnel port.
func (p *Pod) tunnel(ctx context.Context, c *connection, r *wds.Route) (way, error) {
	c.tunnel, c.authority, c.dstID = true, r.Authority, r.Peers[0]
	c.traceparent = trace.Begin().Traceparent()
	done := r.Workload.Opened()
	// Setting up the tunnel has its time, see dialTunnel, and then the peer has as long
	// to connect to its application: what became of either is a better reason than
	// that nobody waited for it.
	ctx, cancel := context.WithTimeout(ctx, 2*p.cfg.ConnectTimeout)
	defer cancel()
	s, err := p.openTunnel(ctx, c, r, hbone.Request{Authority: r.Authority, Fields: p.requestFields(c)})
	if err != nil {
		done()
		return way{}, err
	}
	c.moved = s.Transferred
	c.onCut(func(error) { s.Reset(hbone.CodeCancel) })
	return way{stream: s, done: done}, nil
}

// direct connects as the application would have: to what is not in the mesh.
func (p *Pod) direct(ctx context.Context, c *connection, r *wds.Route) (way, error) {
	c.tunnel, c.transport, c.authority, c.dstID = false, "", "", identity.ID{}
	up, err := netns.Dial(ctx, p.ns, netns.DialOptions{Mark: Mark, Timeout: p.cfg.ConnectTimeout}, r.Connect)
	if err != nil {
		return way{}, err
	}
	p.cfg.Metrics.plaintextSeen(c)
	c.onCut(closing(up))
	w := way{up: up}
	if r.Workload != nil {
		w.done = r.Workload.Opened()
	}
	return w, nil
}

// closing resets a connection.
func closing(up *netns.Conn) func(error) {
	return func(error) {
		_ = up.SetLinger(0)
		_ = up.Close()
	}
}

// dialTunnel sets up a tunnel connection from within the pod.
func (p *Pod) dialTunnel(ctx context.Context, key tunnel.Key) (*hbone.ClientConn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.ConnectTimeout)
	defer cancel()
	tlsConfig, err := key.TLS(ctx, p.source.Get, tunnel.H2)
	if err != nil {
		return nil, err
	}
	sock, err := netns.Dial(ctx, p.ns, netns.DialOptions{Mark: Mark}, key.Addr)
	if err != nil {
		return nil, fmt.Errorf("tunnel to %s: %w", key.Addr, err)
	}
	cc, err := hbone.NewClientConn(ctx, sock, tlsConfig, p.cfg.HBONE)
	if err != nil {
		return nil, fmt.Errorf("tunnel to %s: %w", key.Addr, err)
	}
	return cc, nil
}

// requestFields are the header fields of a CONNECT, reference section 1.3.
func (p *Pod) requestFields(c *connection) []hbone.Field {
	forwarded := `for="` + c.srcAddr.String() + `"`
	if c.service != nil {
		forwarded += ";host=" + c.service.Hostname
	}
	fields := []hbone.Field{
		{Name: "baggage", Value: baggage(c.src, p.cfg.Cluster)},
		{Name: "forwarded", Value: forwarded},
		{Name: "traceparent", Value: c.traceparent},
	}
	if c.waypoint && c.service != nil && c.service.External {
		// Several namespaces may know the same host, each with its own policies.
		fields = append(fields, hbone.Field{Name: fieldService, Value: c.service.Key})
	}
	return fields
}

// fieldService says to the waypoint of a host outside which service is meant, as
// <namespace>/<hostname>.
const fieldService = "ambit-service"

// baggage describes a workload to the other end.
func baggage(w *wds.Workload, cluster string) string {
	var b strings.Builder
	add := func(key, value string) {
		if value == "" {
			return
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(key)
		b.WriteByte('=')
		b.WriteString(value)
	}
	if w.Cluster != "" {
		cluster = w.Cluster
	}
	add("k8s.cluster.name", cluster)
	add("k8s.namespace.name", w.Namespace)
	add("k8s."+w.Type+".name", w.Owner)
	add("service.name", w.CanonicalName)
	add("service.version", w.CanonicalRevision)
	add("cloud.region", w.Region)
	add("cloud.availability_zone", w.Zone)
	return b.String()
}

// illegalPort tells ports that only the proxy itself listens on.
func illegalPort(port uint16) bool {
	return port == PortOutbound || port == PortPlaintext || port == PortHBONE || port == portDNS
}
