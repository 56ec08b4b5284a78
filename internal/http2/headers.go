package http2

import (
	"github.com/ambit-mesh/ambit/internal/h2wire"
	"github.com/ambit-mesh/ambit/internal/http2/hpack"
	"github.com/ambit-mesh/ambit/internal/message"
)

// maxPieces bounds how finely a header block may be cut (CVE-2024-27316).
const maxPieces = 16

// maxBlock bounds an encoded header block. Up to there a block that is too large
// is answered as such; beyond, the connection ends.
func (r *reader) maxBlock() int { return 2*r.c.cfg.MaxHeaderBytes + h2wire.MinMaxFrame }

func (r *reader) onHeaders(b []byte) error {
	f := r.frame
	if f.Stream == 0 || f.Stream%2 == 0 {
		return connError(h2wire.CodeProtocol, "HEADERS on stream %d", f.Stream)
	}
	if f.Flags&h2wire.FlagPadded != 0 {
		if len(b) < 1 || int(b[0]) > len(b)-1 {
			return connError(h2wire.CodeProtocol, "padding larger than the frame")
		}
		b = b[1 : len(b)-int(b[0])]
	}
	if f.Flags&h2wire.FlagPriority != 0 {
		if len(b) < 5 {
			return connError(h2wire.CodeFrameSize, "HEADERS too short for its priority")
		}
		b = b[5:]
	}
	r.blockEnd = f.Flags&h2wire.FlagEndStream != 0
	if f.Flags&h2wire.FlagEndHeaders != 0 {
		return r.complete(f.Stream, b)
	}
	r.blockID, r.pieces = f.Stream, 0
	r.block = append(r.block[:0], b...)
	return nil
}

func (r *reader) onContinuation(b []byte) error {
	if r.blockID == 0 {
		return connError(h2wire.CodeProtocol, "CONTINUATION without HEADERS")
	}
	if r.pieces++; r.pieces > maxPieces || len(r.block)+len(b) > r.maxBlock() {
		return connError(h2wire.CodeEnhanceYourCalm, "header block too large or cut too finely")
	}
	r.block = append(r.block, b...)
	if r.frame.Flags&h2wire.FlagEndHeaders == 0 {
		return nil
	}
	id, block := r.blockID, r.block
	if r.blockID = 0; cap(r.block) > smallRead {
		r.block = nil
	}
	return r.complete(id, block)
}

// complete decodes one complete header block. It is decoded even if nobody wants
// it, since HPACK's state is the connection's.
func (r *reader) complete(id uint32, b []byte) error {
	fields, excess, err := r.decoder.Decode(b)
	if err != nil {
		return connError(h2wire.CodeCompression, "%v", err)
	}
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[id]
	switch {
	case s != nil && s.client != nil && s.client.head == nil:
		err = s.client.headLocked(fields, excess, r.blockEnd)
		r.touchLocked(s)
	case s != nil:
		s.trailersLocked(fields, excess, r.blockEnd)
		r.touchLocked(s)
		if s.err != nil {
			err = c.spendLocked(costViolation)
		}
	case c.server != nil && id > c.lastPeerID:
		err = r.openLocked(id, fields, excess)
	default:
		err = r.lateHeadersLocked(id)
	}
	return err
}

// lateHeadersLocked judges a header block for a stream that is not open.
func (r *reader) lateHeadersLocked(id uint32) error {
	c := r.c
	if _, err := c.findLocked(id); err != nil {
		return err
	}
	switch ended, sure := c.past.find(id); {
	case ended == endedByUs: // sent before the peer knew
		return c.spendLocked(1)
	case ended == endedUnknown && sure: // section 5.1.1: skipped, and so never to be opened
		return connError(h2wire.CodeProtocol, "HEADERS on stream %d, which is lower than one before", id)
	}
	return connError(h2wire.CodeStreamClosed, "HEADERS on stream %d, which was closed", id)
}

// What requests that come to nothing take from their peer's budget.
const (
	costRefused   = 2
	costMalformed = 2
	costTooLarge  = 20
)

// openLocked begins a request.
func (r *reader) openLocked(id uint32, fields []hpack.Field, excess hpack.Excess) error {
	c := r.c
	c.lastPeerID = id
	// Handlers of streams that were reset may take a while to return; a peer cannot
	// know how long, but does not get to start any number of them either.
	if c.draining || len(c.streams) >= c.cfg.MaxStreams || c.server.running >= 2*c.cfg.MaxStreams {
		c.pending = h2wire.AppendRSTStream(c.pending, id, h2wire.CodeRefusedStream)
		c.past.add(id, true)
		if c.draining {
			return c.spendLocked(costRefused)
		}
		return c.server.rejectedLocked(message.Rejection{Limit: "max_streams", Reason: "more requests at a time than the connection may have"}, costRefused)
	}
	if excess != hpack.Within {
		return c.server.tooLargeLocked(id, excess, r.blockEnd)
	}
	s := c.server.newStream(id)
	if reason := parseRequest(&s.req, fields, r.blockEnd); reason != "" {
		return c.server.malformedLocked(id, reason)
	}
	s.tunnel = s.req.Tunnel()
	s.expect = s.req.ContentLength
	c.processed = id
	c.addLocked(&s.stream)
	c.server.running++
	if r.blockEnd {
		s.recvEnd = true
	} else {
		s.req.Body = &s.body
	}
	r.started = append(r.started, s)
	return nil
}
