package proxy

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/internal/flow"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/wds"
	"github.com/ambit-mesh/ambit/waypoint/internal/upstream"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// opaque is a connection that is passed on as it is.
type opaqueConn struct {
	d              *downstream
	record         flow.Record
	sent, received atomic.Int64
	idle           time.Duration         // how long neither side may be silent; 0: for ever
	cutBy          atomic.Pointer[error] // why it was ended by us
	encrypted      bool                  // the client speaks TLS itself
	bare           bare
	via            transports // of datagrams
}

// serveOpaque passes the connection on. first are bytes that were read already.
func (d *downstream) serveOpaque(ctx context.Context, first []byte) {
	(&opaqueConn{d: d, record: d.recordOf(time.Now())}).serve(ctx, first, "")
}

// serve passes the connection on. server is the name that a TLS client asked for.
func (o *opaqueConn) serve(ctx context.Context, first []byte, server string) {
	up, done, err := o.connect(ctx, server)
	if err == nil {
		defer done()
		err = o.relay(ctx, up, first)
	}
	o.finish(err)
}

// allowed asks the policies of the service.
func (o *opaqueConn) allowed() error {
	d := o.d
	e := d.proxy.cfg.Frontends.Key(d.key)
	if e == nil {
		return failed(503, flagInvalid, "destination_not_found", "service %s is no longer bound to waypoint %s", d.key, d.proxy.cfg.Gateway)
	}
	if !e.Config.GetExternal() && len(e.Config.GetAuthorizationPolicies()) == 0 {
		return nil // the destination's node decides; see exchange.decide
	}
	v := d.evaluator(e.Config.GetNamespace(), e.Config.GetAuthorizationPolicies()).Decide(d.facts())
	if v.Allowed {
		o.record.Audits = audits(v.Audits)
		return nil
	}
	return denied(&v)
}

// connect decides about the connection and reaches a backend for it.
func (o *opaqueConn) connect(ctx context.Context, server string) (upstream.Conn, func(), error) {
	d := o.d
	if d.key == "" {
		return o.connectWorkload(ctx)
	}
	cluster, timeout, err := o.choose(server)
	if err != nil {
		return nil, nil, err
	}
	if !o.encrypted {
		o.bare = bareTo(cluster)
	}
	open := func(ctx context.Context, e *upstream.Endpoint, client *upstream.Client, timeout time.Duration) (upstream.Conn, trace.Context, error) {
		return cluster.Pass(ctx, e, client, timeout, o.encrypted)
	}
	up, done, err := reach(ctx, o, cluster, timeout, open)
	if err == nil && !o.record.Destination.Address.Addr().IsValid() {
		o.record.Destination.Address = remote(up) // of a host outside
	}
	return up, done, err
}

// choose decides about the connection and picks a backend for it. It gives how long
// connecting to there may take; 0 is the usual time.
func (o *opaqueConn) choose(server string) (*upstream.Cluster, time.Duration, error) {
	d := o.d
	if err := o.allowed(); err != nil {
		return nil, 0, err
	}
	e := d.proxy.cfg.Frontends.Key(d.key)
	if e == nil {
		return nil, 0, failed(503, flagInvalid, "destination_not_found", "service %s is no longer bound", d.key)
	}
	find := d.proxy.cfg.Upstream.Cluster
	var decision route.Decision
	if d.udp {
		decision, find = e.Routes.MatchUDP(d.routeClient(), d.port), d.proxy.cfg.Upstream.ClusterUDP
	} else {
		decision = e.Routes.MatchConnection(d.routeClient(), d.port, server)
	}
	if decision.Rule == nil || decision.Rule.Invalid != "" {
		return nil, 0, failed(404, flagNoRoute, "destination_not_found", "%s", decision.Reason)
	}
	b, reason := decision.Rule.PickBackend(rand.Uint64())
	if b == nil || b.Invalid != "" {
		return nil, 0, failed(500, flagInvalid, "proxy_configuration_error", "%s: %s", decision.Rule.ID(), reason)
	}
	o.idle = decision.Rule.Timeouts.Idle.Or(0)
	return find(b.Service, b.Port), decision.Rule.Timeouts.Connect.Or(0), nil
}

// connectionTries is how many endpoints are tried before the first byte.
const connectionTries = 3

// reach opens a way to an endpoint of the cluster. What is given with it ends it.
func reach[C io.Closer](ctx context.Context, o *opaqueConn, cluster *upstream.Cluster, timeout time.Duration,
	open func(context.Context, *upstream.Endpoint, *upstream.Client, time.Duration) (C, trace.Context, error),
) (up C, done func(), err error) {
	var none C
	leave, err := cluster.Enter()
	if err != nil {
		return none, nil, err
	}
	var pick upstream.Pick
	for n := 1; ; n++ {
		e, err := cluster.Choose(pick)
		if err != nil {
			leave()
			return none, nil, err
		}
		use := e.Use()
		w := e.Workload()
		o.record.Destination = flow.End{Workload: w, Identity: w.Identity(), Address: e.Address(o.d.client.Address.Addr().Is4())}
		up, via, err := open(ctx, e, &o.d.client, timeout)
		o.record.TunnelOut = via
		if err == nil || endpointFailed(ctx, err) {
			use.Answered(err != nil)
		}
		if err == nil {
			return up, func() { _ = up.Close(); use.Done(); leave() }, nil
		}
		use.Done()
		pick.Avoid = append(pick.Avoid, e)
		if status, _, refused := upstream.Refused(err); n == connectionTries || ctx.Err() != nil || refused && status != 503 || errors.Is(err, upstream.ErrProhibited) {
			leave()
			return none, nil, err
		}
	}
}

func remote(c net.Conn) netip.AddrPort {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		at := a.AddrPort()
		return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	return netip.AddrPort{}
}

// connectWorkload reaches the workload whose own address was asked for.
func (o *opaqueConn) connectWorkload(ctx context.Context) (upstream.Conn, func(), error) {
	d := o.d
	if d.ownPort() {
		var nd net.Dialer
		c, err := nd.DialContext(ctx, "tcp", d.asked.String())
		if err != nil {
			return nil, nil, err
		}
		up := c.(*net.TCPConn)
		return up, func() { _ = up.Close() }, nil
	}
	w := d.proxy.cfg.Store.Workload(d.asked.Addr())
	if w == nil {
		return nil, nil, failed(503, flagNoEndpoint, "destination_not_found", "workload at %s is gone", d.asked)
	}
	o.record.Destination = flow.End{Workload: w, Identity: w.Identity(), Address: d.asked}
	up, via, err := d.proxy.cfg.Dialer.Connect(ctx, nil, wds.Endpoint{Workload: w, Port: d.asked.Port()}, &d.client, 0)
	o.record.TunnelOut = via
	if err != nil {
		return nil, nil, err
	}
	return up, func() { _ = up.Close() }, nil
}

// relay copies both ways until both have ended.
func (o *opaqueConn) relay(ctx context.Context, up upstream.Conn, first []byte) error {
	stop := context.AfterFunc(ctx, func() {
		o.d.conn.Stream().Reset(hbone.CodeCancel)
		_ = up.SetDeadline(time.Unix(1, 0))
	})
	defer stop()
	if o.d.key != "" {
		// Decided about before it is known to whoever asks again: once more.
		defer o.d.proxy.live.add(&lasting{allowed: o.stillAllowed, cut: func(err error) { o.cut(up, err) }})()
		if err := errors.Join(o.bare.outdated(), o.allowed()); err != nil {
			return err
		}
	}
	stopIdle := o.watchIdle(up)
	defer stopIdle()
	err := hbone.Relay(&prefixed{StreamConn: o.d.conn, rest: first}, up, &o.sent, &o.received)
	if cut := o.cutBy.Load(); cut != nil {
		return *cut
	}
	return err
}

// watchIdle ends the connection when neither side has sent anything for too long.
// It looks at what was passed on, a few times in that time.
func (o *opaqueConn) watchIdle(up upstream.Conn) (stop func()) {
	if o.idle <= 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(max(o.idle/8, time.Millisecond))
		defer tick.Stop()
		last, since := int64(-1), time.Now()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				if n := o.sent.Load() + o.received.Load(); n != last {
					last, since = n, now
				} else if now.Sub(since) >= o.idle {
					o.cut(up, timeoutError{timeoutIdle, "a pause of the connection", o.idle})
					return
				}
			}
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// stillAllowed is allowed for another goroutine: the record is not its.
func (o *opaqueConn) stillAllowed() error {
	if err := o.bare.outdated(); err != nil {
		return err
	}
	return (&opaqueConn{d: o.d}).allowed()
}

// cut ends the connection for a reason.
func (o *opaqueConn) cut(up upstream.Conn, err error) {
	o.cutBy.CompareAndSwap(nil, &err)
	o.d.conn.Stream().Reset(hbone.CodeCancel)
	_ = up.SetDeadline(time.Unix(1, 0))
}

// finish ends the connection and its books. One that has failed is reset.
func (o *opaqueConn) finish(err error) {
	if err != nil {
		o.d.conn.Stream().Reset(hbone.CodeCancel)
	}
	o.account(err)
}

// account closes the books: metrics, flow and log say the same.
func (o *opaqueConn) account(err error) {
	r := &o.record
	r.Duration = time.Since(r.Start)
	r.Sent, r.Received = o.sent.Load(), o.received.Load()
	if err != nil {
		o.d.timedOut(err)
		f := failureOf(err)
		r.Verdict, r.Reason, r.Flags, r.Policy = f.verdict, f.reason, f.flag, f.policy
	}
	o.d.proxy.cfg.Metrics.connections.WithLabelValues(o.d.key, r.Flags).Inc()
	o.d.proxy.cfg.Flows.Append(r)
	o.d.proxy.log(r, o.via)
}

// lastWord is how long a client that is not connected to anything may be silent.
const lastWord = 10 * time.Second

// serveSilent connects a client that says nothing to the service. If the service
// speaks first it goes on so; if the client does after all, its protocol is told
// from what it says, and the connection was for nothing.
func (d *downstream) serveSilent(ctx context.Context) {
	o := &opaqueConn{d: d, record: d.recordOf(time.Now())}
	up, done, err := o.connect(ctx, "")
	if err != nil {
		// Whether this is a failure depends on what the client has to say: a request
		// may be allowed, or routed, where a connection as such is not.
		kind, first, serr := sniff(d.conn, time.Now().Add(lastWord))
		if serr == nil && kind != opaque {
			d.serveDialect(ctx, kind, first)
			return
		}
		o.finish(err)
		return
	}
	kind, heard, spoke := o.listen(up)
	if spoke {
		defer done()
		o.finish(o.relay(ctx, &answered{Conn: up, rest: heard.server}, heard.client))
		return
	}
	if kind == opaque || kind == undecided {
		defer done()
		o.finish(o.relay(ctx, &answered{Conn: up, rest: heard.server}, heard.client))
		return
	}
	done()
	d.serveDialect(ctx, kind, heard.client)
}

// heard is what the two ends have said so far.
type heard struct{ client, server []byte }

// listen waits until one of the two speaks, and tells the client's dialect.
func (o *opaqueConn) listen(up upstream.Conn) (kind dialect, h heard, serverSpoke bool) {
	type result struct {
		p   []byte
		err error
	}
	server := make(chan result, 1)
	_ = o.d.conn.SetReadDeadline(time.Time{})
	go func() {
		p := make([]byte, 4096)
		n, err := up.Read(p)
		// The client is not waited for any more. Only then: what is set below counts.
		_ = o.d.conn.SetReadDeadline(time.Unix(1, 0))
		server <- result{p[:n], err}
	}()
	kind, h.client, _ = sniffed(o.d.conn)
	_ = up.SetReadDeadline(time.Unix(1, 0))
	r := <-server
	_ = up.SetReadDeadline(time.Time{})
	_ = o.d.conn.SetReadDeadline(time.Time{})
	h.server = r.p
	ended := r.err != nil && !errors.Is(r.err, os.ErrDeadlineExceeded)
	return kind, h, len(r.p) > 0 || ended && errors.Is(r.err, io.EOF)
}

// answered is a backend's connection of which the first bytes were read.
type answered struct {
	upstream.Conn
	rest []byte
}

// Read gives the bytes that were read first.
func (c *answered) Read(p []byte) (int, error) {
	if len(c.rest) > 0 {
		n := copy(p, c.rest)
		c.rest = c.rest[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}
