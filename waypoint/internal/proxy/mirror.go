package proxy

import (
	"context"
	"io"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/internal/upstream"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

const (
	// maxMirrors bounds the copies under way; more are dropped and counted.
	maxMirrors = 512
	// mirrorTimeout bounds a copy.
	mirrorTimeout = 30 * time.Second
)

// mirrors draws the mirrors of a request.
func (x *exchange) mirrors(a *attempts) []*route.Mirror {
	var out []*route.Mirror
	for _, filters := range [2][]route.Filter{x.decision.Rule.Filters, x.backend.Filters} {
		for i := range filters {
			m := filters[i].Mirror
			if m == nil || !m.Hit(rand.Uint64()) {
				continue
			}
			switch {
			case m.Backend.Invalid != "":
				x.p.mirrored(m, "invalid")
			case x.req.Tunnel():
				x.p.mirrored(m, "tunnel")
			default:
				out = append(out, m)
				x.record.HTTP.Mirrors = append(x.record.HTTP.Mirrors, m.Backend.Service)
			}
		}
	}
	if len(out) > 0 && x.req.Body == nil {
		x.launch(out, a, nil)
		return nil
	}
	return out
}

// sendMirrors sends copies of a request with a body, when that has come whole. It
// is called when the request is over, so that its client waits for nothing.
func (x *exchange) sendMirrors(mirrors []*route.Mirror, a *attempts) {
	if len(mirrors) == 0 {
		return
	}
	var body []byte
	whole := false
	if a.body != nil {
		body, whole = a.body.whole()
	}
	if !whole {
		for _, m := range mirrors {
			x.p.mirrored(m, "body")
		}
		return
	}
	x.launch(mirrors, a, body)
}

func (x *exchange) launch(mirrors []*route.Mirror, a *attempts, body []byte) {
	for _, m := range mirrors {
		select {
		case x.p.mirroring <- struct{}{}:
		default:
			x.p.mirrored(m, "overflow")
			continue
		}
		up := a.up
		up.Fields = a.up.Fields.Clone(2)
		x.span.Or(x.trace).Child().Inject(&up.Fields)
		up.Body = nil
		if up.ContentLength != 0 && body != nil {
			up.Body, up.ContentLength = message.BytesBody(body), int64(len(body))
		}
		client, p, proto := x.d.client, x.p, a.proto
		p.wg.Go(func() {
			defer func() { <-p.mirroring }()
			p.mirror(m, &client, up, protocolOf(&m.Backend, proto))
		})
	}
}

// mirror sends one copy and disregards the answer.
func (p *Proxy) mirror(m *route.Mirror, client *upstream.Client, up message.Request, proto waypoint.Protocol) {
	ctx, cancel := context.WithTimeout(p.ctx, mirrorTimeout)
	defer cancel()
	if err := p.ask(ctx, &m.Backend, client, &up, proto, discard); err != nil {
		p.cfg.Log.Debug("mirror", zap.String("backend", m.Backend.Service), zap.Error(err))
		p.mirrored(m, "failed")
		return
	}
	p.mirrored(m, "sent")
}

// protocolOf is what a backend speaks, or else what the request is sent in anyway.
func protocolOf(b *route.Backend, otherwise waypoint.Protocol) waypoint.Protocol {
	if b.Protocol == waypoint.Protocol_PROTOCOL_HTTP1 || b.Protocol == waypoint.Protocol_PROTOCOL_HTTP2 {
		return b.Protocol
	}
	return otherwise
}

// mirrored counts what became of a copy.
func (p *Proxy) mirrored(m *route.Mirror, outcome string) {
	p.cfg.Metrics.mirrors.WithLabelValues(m.Backend.Service, outcome).Inc()
}

// discard reads a response to its end, so that the connection can be used again.
func discard(resp *message.Response) error {
	if resp.Body == nil {
		return nil
	}
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	for {
		if _, err := resp.Body.Read(*buf); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// ask sends one request of the waypoint's own making, or a copy, and has the
// response read.
func (p *Proxy) ask(ctx context.Context, b *route.Backend, client *upstream.Client, req *message.Request, proto waypoint.Protocol, read func(*message.Response) error) error {
	cluster := p.cfg.Upstream.Cluster(b.Service, b.Port)
	leave, err := cluster.Enter()
	if err != nil {
		return err
	}
	defer leave()
	e, err := cluster.Choose(upstream.Pick{})
	if err != nil {
		return err
	}
	use := e.Use()
	defer use.Done()
	resp, _, err := cluster.RoundTrip(ctx, e, client, proto, 0, req, nil)
	if err != nil {
		if endpointFailed(ctx, err) {
			use.Answered(true)
		}
		return err
	}
	use.Answered(resp.Status >= 500)
	if resp.Body != nil {
		stop := context.AfterFunc(ctx, func() { _ = resp.Body.Close() })
		defer stop()
		defer func() { _ = resp.Body.Close() }()
	}
	return read(resp)
}
