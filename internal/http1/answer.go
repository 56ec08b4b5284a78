package http1

import (
	"github.com/ambit-mesh/ambit/internal/message"
)

// answerPlan is how an answer will be framed.
type answerPlan struct {
	how    framing
	length int64
	close  bool
}

// plan decides how the answer is framed and whether the connection lasts.
func (x *exchange) plan(resp *message.Response) (answerPlan, error) {
	sc := x.sc
	p := answerPlan{how: byChunks, length: resp.ContentLength}
	p.close = x.last || !x.continued || x.failed.Load() || sc.isDraining() ||
		sc.cfg.MaxRequestsPerConn > 0 && sc.served >= sc.cfg.MaxRequestsPerConn
	switch {
	case x.accepts(resp):
		p.how = rawBytes
		return p, nil
	case resp.Status < 200 || resp.Status > 999:
		return p, &FieldError{Name: "status", Reason: "not that of a final response to this request"}
	case x.req.Tunnel():
		// What the client has sent in the hope of a tunnel must not be read as a request.
		p.close = true
	}
	switch {
	case x.req.Method == "HEAD", resp.Status == 204, resp.Status == 304:
		p.how = noBody
	case p.length >= 0:
		p.how = byLength
	case x.req.Version == message.HTTP10:
		p.how, p.close = byClose, true // RFC 9112 section 6.1: it knows of no chunks
	}
	return p, nil
}

// accepts reports whether resp opens the tunnel that was asked for. HTTP/2 says
// 200 where we have to say 101 (RFC 8441 section 5).
func (x *exchange) accepts(resp *message.Response) bool {
	switch {
	case x.req.Protocol != "":
		return resp.Status == 101 || resp.Status/100 == 2 && resp.Protocol != ""
	case x.req.Method == "CONNECT":
		return resp.Status/100 == 2
	}
	return false
}

// appendHead writes the head of an answer.
func (x *exchange) appendHead(b []byte, resp *message.Response, p *answerPlan) ([]byte, error) {
	status := resp.Status
	if p.how == rawBytes && x.req.Protocol != "" {
		status = 101
	}
	b, err := appendFields(appendStatus(b, status), resp.Fields, oneHop)
	if err != nil {
		return b, err
	}
	switch {
	case status == 101:
		protocol := resp.Protocol
		if protocol == "" {
			protocol = x.req.Protocol
		}
		if !validProtocol(protocol) {
			return b, &FieldError{Name: "protocol", Reason: "not a token"}
		}
		b = appendAccept(b, &x.req, resp)
		b = append(b, "connection: upgrade\r\nupgrade: "...)
		b = append(b, protocol...)
		return append(b, "\r\n\r\n"...), nil
	case p.how == rawBytes:
		return append(b, "\r\n"...), nil // RFC 9110 section 9.3.6: no framing fields
	case p.how == byChunks:
		b = append(b, "transfer-encoding: chunked\r\n"...)
	case p.how == byLength, status == 304 && p.length > 0, p.how == noBody && status != 204 && status != 304 && p.length >= 0:
		b = appendLength(b, p.length)
	}
	if p.close {
		b = append(b, "connection: close\r\n"...)
	}
	return append(b, "\r\n"...), nil
}

// chunkRoom is what a chunk takes beside its content.
const chunkRoom = 16

// emit sends content behind what is held back, as few Writes as a large buffer
// allows. It gives how much of p was sent.
func (x *exchange) emit(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		rest := p[done:]
		if x.out == nil && x.how != byChunks {
			n, err := x.sc.out.write(rest)
			if err != nil {
				x.lost(err)
			}
			return done + n, err
		}
		x.makeRoom(len(rest) + chunkRoom)
		k := min(len(rest), cap(x.held)-len(x.held)-chunkRoom)
		if x.how == byChunks {
			x.held = appendChunk(x.held, rest[:k])
		} else {
			x.held = append(x.held, rest[:k]...)
		}
		if err := x.flush(); err != nil {
			return done, err
		}
		done += k
	}
	return done, nil
}

// makeRoom has held lie in a buffer with room for n more bytes, or as many as a
// large one has.
func (x *exchange) makeRoom(n int) {
	if x.out == nil {
		x.out = takeSmall()
		x.held = x.out.b[:0]
	}
	have := len(x.held)
	if cap(x.held)-have >= n || len(x.out.b) == largeSize && have < largeSize/2 {
		return
	}
	next := takeLarge()
	if have >= largeSize/2 {
		next.give()
		next = &buffer{b: make([]byte, have+largeSize)} // a huge head
	}
	x.held = append(next.b[:0], x.held...)
	x.out.give()
	x.out = next
}

// flush sends what is held back.
func (x *exchange) flush() error {
	if x.out == nil {
		return nil
	}
	err := x.send(x.held)
	x.unhold()
	return err
}

func (x *exchange) unhold() {
	if x.out != nil {
		x.out.give()
		x.out, x.held = nil, nil
	}
}

func (x *exchange) send(b []byte) error {
	_, err := x.sc.out.write(b)
	if err != nil {
		x.lost(err)
	}
	return err
}

// lost is a client that takes nothing any more.
func (x *exchange) lost(err error) {
	x.state, x.err = brokenOff, err
	x.unhold()
	x.sc.cancel()
}
