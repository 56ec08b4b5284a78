package http2

import (
	"context"
	"io"

	"github.com/ambit-mesh/ambit/internal/h2wire"
	"github.com/ambit-mesh/ambit/internal/message"
)

// body is the content that comes on a stream, as message.Body.
type body struct {
	s   *stream
	ctx context.Context // client: ends the exchange; nil in a server
}

var _ message.Body = (*body)(nil)

// Read implements message.Body. The last bytes come together with io.EOF if the
// end has come.
func (b *body) Read(p []byte) (int, error) {
	s := b.s
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		n := s.queue.read(p)
		if n > 0 {
			s.tookLocked(n)
		}
		switch {
		case s.deaf:
			return 0, errBodyClosed
		case s.recvEnd && s.queue.size == 0:
			return n, io.EOF
		case n > 0 || len(p) == 0:
			return n, nil
		case s.err != nil:
			return 0, b.failure(s.err)
		}
		if s.server != nil {
			s.server.continueLocked()
		}
		ch := waitChan(&s.readWake)
		c.mu.Unlock()
		err := b.wait(ch)
		c.mu.Lock()
		if err != nil {
			s.resetLocked(h2wire.CodeCancel, &message.ExchangeError{Stage: message.Aborted, Err: err})
		}
	}
}

func (b *body) wait(ch chan struct{}) error {
	if b.ctx == nil {
		<-ch
		return nil
	}
	select {
	case <-ch:
		return nil
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
}

// failure says what an unfinished body means for the exchange.
func (b *body) failure(err error) error {
	if _, ok := err.(*message.ExchangeError); ok || b.s.client == nil {
		return err
	}
	return &message.ExchangeError{Stage: message.Answered, Reused: b.s.id > 1, Err: err}
}

// Buffered implements message.Body.
func (b *body) Buffered() int {
	b.s.c.mu.Lock()
	defer b.s.c.mu.Unlock()
	return b.s.queue.size
}

// Trailers implements message.Body.
func (b *body) Trailers() message.Fields {
	b.s.c.mu.Lock()
	defer b.s.c.mu.Unlock()
	return b.s.trailers
}

// Close implements message.Body. In a client it ends the exchange.
func (b *body) Close() error {
	s := b.s
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.deaf {
		return nil
	}
	s.deaf = true
	n := s.queue.drop()
	if !s.gone {
		s.c.consumedLocked(n)
		s.c.laterLocked()
	}
	wake(s.readWake)
	if s.client != nil {
		s.resetLocked(h2wire.CodeCancel, errCanceled)
	}
	return nil
}
