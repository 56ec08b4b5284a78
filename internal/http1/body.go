package http1

import (
	"io"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/message"
)

// owner is the exchange that a body belongs to.
type owner interface {
	// begin is called before the first Read waits for anything.
	begin() error
	// ended is told once how the reading has ended and gives what Read is to say.
	ended(err error) error
	// closing is called when the body is closed. It must not wait.
	closing()
}

// body is the content of a message, or what comes through a tunnel.
type body struct {
	src   *source
	cfg   *Config
	owner owner
	how   framing // noBody: there is none

	// gate orders Close and the end of a Read, which may hand the connection on to
	// the next exchange: that one must not be interrupted.
	gate            sync.Mutex
	closed, reading bool // guarded by gate

	mu     sync.Mutex // held while reading, and guards what follows
	begun  bool
	left   int64 // byLength
	chunks chunks
	err    error // how it ended
	// settling bounds the wait for bytes that nobody will read.
	settling bool
}

// settleTimeout bounds the wait for the rest of a body that its reader does not
// want. Most have come already.
const settleTimeout = time.Second

// Read implements message.Body. The last bytes come together with io.EOF, so that
// the connection is free as soon as they are taken.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.err != nil:
		return 0, b.err
	case len(p) == 0:
		return 0, nil
	case !b.enter():
		return 0, errClosed
	}
	if !b.begun {
		if err := b.owner.begin(); err != nil {
			b.leave()
			return 0, err
		}
		b.begun = true
	}
	n, err := b.read(p)
	b.src.release()
	b.leave()
	if err != nil {
		b.err = err
		b.err = b.owner.ended(err)
	}
	return n, b.err
}

func (b *body) enter() bool {
	b.gate.Lock()
	defer b.gate.Unlock()
	b.reading = !b.closed
	return b.reading
}

func (b *body) leave() {
	b.gate.Lock()
	b.reading = false
	b.gate.Unlock()
}

func (b *body) read(p []byte) (n int, err error) {
	switch b.how {
	case byChunks:
		n, err = b.readChunks(p)
	case byLength:
		n, err = b.take(p[:min(int64(len(p)), b.left)])
		if b.left -= int64(n); b.left == 0 {
			err = io.EOF
		} else if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
	case byClose, rawBytes:
		n, err = b.take(p)
	default:
		err = io.EOF
	}
	return n, err
}

// take gives what has come, or else waits for bytes straight into p.
func (b *body) take(p []byte) (int, error) {
	if n := copy(p, b.src.bytes()); n > 0 {
		b.src.skip(n)
		if n < len(p) && b.src.ahead() > 0 {
			m, _ := b.src.receive(p[n:]) // what has ended the connection will still be there
			n += m
		}
		return n, nil
	}
	b.src.release() // nothing is held while we wait
	b.src.within(b.patience())
	n, err := b.src.receive(p)
	if n > 0 {
		return n, nil // what ended the connection will still be there
	}
	return 0, b.late(err)
}

func (b *body) patience() time.Duration {
	switch {
	case b.settling:
		return settleTimeout
	case b.how == rawBytes:
		return 0
	}
	return b.cfg.BodyTimeout
}

func (b *body) late(err error) error {
	if isTimeout(err) {
		return &timeout{limit: "body_timeout", reason: "body did not come in time", err: err}
	}
	return err
}

func (b *body) readChunks(p []byte) (n int, err error) {
	c := &b.chunks
	for {
		more, f := c.advance(b.src, b.cfg)
		switch {
		case f != nil:
			return n, f
		case c.phase == chunkEnd:
			return n, io.EOF
		case n == len(p) || n > 0 && b.src.buffered() == 0 && b.src.ahead() == 0:
			return n, nil
		case !more:
			var k int
			k, err = b.take(p[n:][:min(int64(len(p)-n), c.left)])
			n += k
			c.took(k)
		case n > 0:
			return n, nil
		default:
			b.src.within(b.patience())
			err = b.late(b.src.fill())
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return n, err
		}
	}
}

// Buffered implements message.Body.
func (b *body) Buffered() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return 0
	}
	switch b.how {
	case noBody:
		return 0
	case byLength:
		return int(min(b.arrived(), b.left))
	case byChunks:
		if more, f := b.chunks.advance(b.src, b.cfg); more || f != nil {
			return 0 // Read meets the fault again: what is wrong was not taken
		}
		return int(min(b.arrived(), b.chunks.left))
	}
	return int(b.arrived())
}

// arrived is how many bytes can be read without waiting.
func (b *body) arrived() int64 { return int64(b.src.buffered() + b.src.ahead()) }

// Trailers implements message.Body.
func (b *body) Trailers() message.Fields {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.chunks.trailers
}

// Close implements message.Body. A Read that waits ends, and the connection with it.
func (b *body) Close() error {
	b.gate.Lock()
	defer b.gate.Unlock()
	if !b.closed && b.reading {
		b.src.interrupt()
	}
	b.closed = true
	b.owner.closing()
	return nil
}

// settle closes the body, waits for a Read to leave it and takes up to limit bytes
// that nobody has read. It reports whether the body has come to its end.
func (b *body) settle(limit int) bool {
	_ = b.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.how == noBody {
		return true
	}
	if b.err == nil && (b.how == byLength && b.left > int64(limit) || b.how == rawBytes) {
		return false
	}
	b.settling = true
	var scrap *buffer
	for b.err == nil && limit > 0 {
		if scrap == nil {
			scrap = takeSmall()
			defer scrap.give()
		}
		var n int
		n, b.err = b.read(scrap.b)
		limit -= n
	}
	return b.err == io.EOF
}
