package proxy

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync"

	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// copySize is what is passed on at a time. Buffers are taken when there are bytes
// for them and given back when there are none.
const copySize = 32 << 10

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, copySize); return &b }}

// respond passes an answer on.
func (x *exchange) respond(ans *answer) error {
	resp := ans.resp
	if resp.Body != nil {
		stop := context.AfterFunc(ans.ctx, func() { _ = resp.Body.Close() })
		defer stop()
	}
	x.keepSession(ans)
	x.marks(&resp.Fields)
	x.upgraded(resp)
	x.record.HTTP.Status = resp.Status
	x.noteGRPC(resp.Fields)
	x.responded = true
	if err := x.w.Respond(resp); err != nil {
		return x.clientFailed(err)
	}
	if resp.Body == nil {
		return x.clientFailed(x.w.End(nil))
	}
	if x.record.HTTP.Upgrade != "" {
		defer x.p.live.add(&lasting{allowed: x.stillAllowed, cut: func(err error) { x.cutBy.CompareAndSwap(nil, &err); _ = resp.Body.Close() }})()
	}
	if err := x.copy(ans); err != nil {
		if !errors.Is(err, errClientGone) {
			ans.use.Judge(true)
		}
		return err
	}
	trailers := resp.Body.Trailers()
	x.noteGRPC(trailers)
	ans.use.Judge(x.record.HTTP.GRPC && route.Code(x.record.HTTP.GRPCStatus).OfServer())
	return x.clientFailed(x.w.End(trailers))
}

// upgraded notes an accepted upgrade. Whether it is one is known by the codec that has
// read the answer, since a 200 is one in HTTP/2 and none in HTTP/1.1, and each client is
// told in its own version of HTTP (RFC 9110 section 7.8, RFC 8441).
func (x *exchange) upgraded(resp *message.Response) {
	if x.req.Protocol != "" && resp.Protocol != "" {
		x.record.HTTP.Upgrade = x.req.Protocol
	}
}

// clientFailed marks failures of the client's side.
func (x *exchange) clientFailed(err error) error {
	if err == nil {
		return nil
	}
	x.record.Reason = err.Error()
	return errClientGone
}

// stillAllowed asks the policies again.
func (x *exchange) stillAllowed() error {
	if err := x.bare.outdated(); err != nil {
		return err
	}
	if d := x.decide(); !d.Allowed {
		return denied(&d)
	}
	return nil
}

// copy passes the body on as it comes.
func (x *exchange) copy(ans *answer) error {
	body := ans.resp.Body
	for {
		err := x.copySome(body)
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errClientGone):
			return err
		case x.cutBy.Load() != nil:
			return *x.cutBy.Load()
		case ans.ctx.Err() != nil:
			return ended(ans.ctx)
		default:
			return err
		}
	}
}

// copySome waits for bytes and passes on what has come. It waits without a buffer,
// unless the body cannot tell what is there: then a read that filled its buffer
// says that there is more.
func (x *exchange) copySome(body message.Body) error {
	n := 0
	if body.Buffered() == 0 {
		if err := x.w.Flush(); err != nil {
			return x.clientFailed(err)
		}
		if !x.more {
			var err error
			n, err = body.Read(x.first[:])
			if err != nil || body.Buffered() == 0 {
				x.more = n == len(x.first)
				if werr := x.write(x.first[:n]); werr != nil {
					return werr
				}
				return err
			}
		}
	}
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	copy(*buf, x.first[:n])
	m, err := body.Read((*buf)[n:])
	n += m
	x.more = x.more && n == len(*buf)
	if werr := x.write((*buf)[:n]); werr != nil {
		return werr
	}
	return err
}

func (x *exchange) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	x.idle.touch()
	n, err := x.w.Write(p)
	x.record.HTTP.ResponseBytes += int64(n)
	if err != nil {
		return x.clientFailed(err)
	}
	return nil
}

// keepSession tells the client which backend and endpoint it stays with.
func (x *exchange) keepSession(ans *answer) {
	s := x.decision.Rule.Session
	if s == nil {
		return
	}
	if token, changed := x.assigned.NextToken(s, ans.endpoint.Hash, x.start); changed {
		s.Write(token, x.start, x.req.Scheme == "https", &ans.resp.Fields)
	}
}

// noteGRPC keeps the status of a gRPC answer for the record.
func (x *exchange) noteGRPC(fields message.Fields) {
	if !x.record.HTTP.GRPC {
		return
	}
	if v := fields.Get("grpc-status"); v != "" {
		if n, err := strconv.ParseUint(v, 10, 8); err == nil {
			x.record.HTTP.GRPCStatus = int(n)
		}
	}
}
