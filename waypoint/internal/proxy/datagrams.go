package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/internal/flow"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/masque"
	"github.com/ambit-mesh/ambit/internal/tunnel"
	"github.com/ambit-mesh/ambit/internal/wds"
	"github.com/ambit-mesh/ambit/waypoint/internal/upstream"
)

// sessionIdle ends a session in which nothing moves and whose client does not end it,
// where no TimeoutPolicy says how long that may be. Nodes of clients end theirs after
// half of it.
const sessionIdle = 4 * time.Minute

// serveUDP passes a session of datagrams on. It is answered once it has a backend, so
// that the client's node hears why it has none.
func (d *downstream) serveUDP(ctx context.Context, in *tunnel.Ask) {
	o := &opaqueConn{d: d, record: d.recordOf(time.Now()), via: transports{in: d.transport}}
	o.record.Protocol = flowpb.Protocol_PROTOCOL_UDP
	leave, ok := d.proxy.sessions.enter(d.clientKey())
	if !ok {
		o.refuseUDP(in, d.tooMany())
		return
	}
	defer leave()
	up, done, err := o.connectUDP(ctx)
	if err != nil {
		o.refuseUDP(in, err)
		return
	}
	defer done()
	o.via.out = up.Transport()
	down, err := in.AcceptUDP()
	if err != nil {
		o.account(failed(499, flagClientGone, "connection_terminated", "the client's node went away before the session was set up"))
		return
	}
	err = o.relayUDP(ctx, down, up)
	down.Close(err == nil)
	o.account(err)
}

// refuseUDP tells the client's node why there is no session.
func (o *opaqueConn) refuseUDP(in *tunnel.Ask, err error) {
	f := failureOf(err)
	o.account(err)
	in.Refuse(sessionStatus(f), hbone.ProxyStatus(f.kind, f.reason))
}

// sessionStatus is what a CONNECT-UDP is refused with. 503 would have the client's
// node ask another waypoint, which finds the same.
func sessionStatus(f *failure) int {
	if f.status == 503 {
		return 502
	}
	return f.status
}

// connectUDP decides about the session and reaches a backend for it.
func (o *opaqueConn) connectUDP(ctx context.Context) (upstream.Packets, func(), error) {
	d := o.d
	if d.key == "" {
		w := d.proxy.cfg.Store.Workload(d.asked.Addr())
		if w == nil {
			return nil, nil, failed(503, flagNoEndpoint, "destination_not_found", "workload at %s is gone", d.asked)
		}
		o.record.Destination = flow.End{Workload: w, Identity: w.Identity(), Address: d.asked}
		up, via, err := d.proxy.cfg.Dialer.ConnectUDP(ctx, nil, wds.Endpoint{Workload: w, Port: d.asked.Port()}, &d.client, 0)
		o.record.TunnelOut = via
		if err != nil {
			return nil, nil, err
		}
		return up, func() { _ = up.Close() }, nil
	}
	cluster, timeout, err := o.choose("")
	if err != nil {
		return nil, nil, err
	}
	return reach(ctx, o, cluster, timeout, cluster.ConnectUDP)
}

// relayUDP passes datagrams on both ways until one side has ended.
func (o *opaqueConn) relayUDP(ctx context.Context, down tunnel.Packets, up upstream.Packets) error {
	cut := func(err error) {
		o.cutBy.CompareAndSwap(nil, &err)
		down.Close(false)
		_ = up.Close()
	}
	defer context.AfterFunc(ctx, func() { cut(errLeaving) })()
	if o.d.key != "" {
		// Decided about before it is known to whoever asks again: once more.
		defer o.d.proxy.live.add(&lasting{allowed: o.stillAllowed, cut: cut})()
		if err := o.allowed(); err != nil {
			return err
		}
	}
	limit := o.idle
	if limit <= 0 {
		limit = sessionIdle
	}
	idle := watchIdle("a pause of the session", limit, cut)
	defer idle.stop()
	atRest := &rest{idle: idle, end: func() {
		down.Close(true)
		_ = up.Close()
	}}
	defer atRest.stop()
	defer o.d.proxy.remember(atRest, o.d.key)()

	ended := make(chan error, 2) // what comes second is but a consequence
	end := func(err error) {
		ended <- err
		_ = up.Close()
	}
	back := make(chan struct{})
	go func() {
		defer close(back)
		var broken error
		err := up.Receive(func(p []byte, more bool) {
			atRest.moved(true)
			o.received.Add(int64(len(p)))
			if broken != nil {
				return
			}
			var large *hbone3.TooLargeError
			if broken = down.Send(p, more); errors.As(broken, &large) {
				o.dropped(&upstream.DropError{Reason: upstream.DropTooLarge, Err: broken})
				broken = nil
			}
		})
		if broken != nil {
			err = nil // the client is gone, which the other goroutine knows best
		}
		end(serverEnd(err))
		down.Close(true)
	}()
	err := down.Receive(func(p []byte, more bool) {
		atRest.moved(false)
		o.sent.Add(int64(len(p)))
		o.dropped(up.Send(p, more))
	})
	end(clientEnd(err))
	<-back
	if cut := o.cutBy.Load(); cut != nil {
		return *cut
	}
	return <-ended
}

var errLeaving = errors.New("the waypoint has stopped")

// dropped counts a datagram that was not sent. That of a way that has ended is one of
// a session that is ending.
func (o *opaqueConn) dropped(err error) {
	var drop *upstream.DropError
	switch {
	case err == nil:
	case errors.As(err, &drop):
		o.d.proxy.cfg.Metrics.drops.WithLabelValues(drop.Reason).Inc()
	default:
		o.d.proxy.cfg.Metrics.drops.WithLabelValues("not_delivered").Inc()
	}
}

// clientEnd is what is wrong with how a client's session has ended: by a reset is
// one of the ways.
func clientEnd(err error) error {
	var reset *hbone.ResetError
	switch {
	case err == nil, errors.As(err, &reset), errors.Is(err, net.ErrClosed), errors.Is(err, hbone.ErrClosed):
		return nil
	case errors.Is(err, masque.ErrMalformed), errors.Is(err, io.ErrUnexpectedEOF):
		return failed(400, flagMalformed, "http_request_error", "what the client's node sent: %s", err)
	}
	return failed(499, flagClientGone, "connection_terminated", "the client's tunnel: %s", err)
}

// serverEnd is what is wrong with how the backend's side has ended.
func serverEnd(err error) error {
	var reset *hbone.ResetError
	if err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, hbone.ErrClosed) || errors.As(err, &reset) && !reset.Remote {
		return nil
	}
	if errors.Is(err, masque.ErrMalformed) || errors.Is(err, io.ErrUnexpectedEOF) {
		return failed(502, flagProtocol, "http_protocol_error", "what the destination's node sent: %s", err)
	}
	return err
}
