package hbone3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// wire is what the two ends of the library's streams have in common.
type wire interface {
	io.ReadWriteCloser
	CancelRead(quic.StreamErrorCode)
	CancelWrite(quic.StreamErrorCode)
	SendDatagram(b []byte) error
	ReceiveDatagram(ctx context.Context) ([]byte, error)
}

// Stream is one tunnelled byte stream, or a flow of datagrams.
type Stream struct {
	w              wire         // changed once, guarded by mu, when a server accepts
	sent, received atomic.Int64 // bytes of payload

	once  sync.Once
	ended func()      // called once when it has; may be nil
	whole atomic.Bool // we have ended our direction in order

	mu  sync.Mutex
	err error // why it was reset here; guarded by mu
}

// end notes that nothing moves any more.
func (s *Stream) end() {
	if s.ended != nil {
		s.once.Do(s.ended)
	}
}

// closeWrite ends our direction.
func (s *Stream) closeWrite() error {
	s.whole.Store(true)
	return mapped(s.w.Close())
}

// Transferred gives the payload bytes sent to and received from the peer.
func (s *Stream) Transferred() (sent, received int64) { return s.sent.Load(), s.received.Load() }

// Close ends both directions of a flow of datagrams in order: ReceivePayloads ends here,
// and returns nil at the peer.
func (s *Stream) Close() {
	s.mu.Lock()
	if s.err == nil {
		s.err = hbone.ErrClosed
	}
	w := s.w
	s.mu.Unlock()
	_ = s.closeWrite()
	w.CancelRead(quic.StreamErrorCode(http3.ErrCodeNoError))
	s.end()
}

// closed reports whether Close was called before anything was wrong.
func (s *Stream) closed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Is(s.err, hbone.ErrClosed)
}

// Reset ends the stream at both ends at once.
func (s *Stream) Reset(code hbone.ErrCode) {
	s.fail(&hbone.ResetError{Code: code})
	s.end()
}

func (s *Stream) fail(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	w := s.w
	s.mu.Unlock()
	w.CancelRead(quic.StreamErrorCode(http3.ErrCodeConnectError))
	w.CancelWrite(quic.StreamErrorCode(http3.ErrCodeConnectError))
}

// reason prefers why we reset it to what the library says of that.
func (s *Stream) reason(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	return mapped(err)
}

// bufSize is what is copied at a time.
const bufSize = 32 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, bufSize); return &b }}

// Splice copies between the stream and the application's connection until both
// directions have ended, keeping half-closes and resets. It returns nil after an
// orderly end, and the reason otherwise. It does not close app, except that a
// stream that breaks resets it.
func (s *Stream) Splice(app net.Conn) error {
	defer s.end()
	back := make(chan error, 1)
	go func() { back <- s.download(app) }()
	up := s.upload(app)
	down := <-back
	if up == nil || down != nil && errors.Is(up, net.ErrClosed) {
		up = down
	}
	return up
}

// upload sends what the application writes.
func (s *Stream) upload(app net.Conn) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := app.Read(*buf)
		if n > 0 {
			if _, werr := s.w.Write((*buf)[:n]); werr != nil {
				werr = s.reason(werr)
				abort(app)
				s.fail(werr)
				return werr
			}
			s.sent.Add(int64(n))
		}
		if err == io.EOF {
			return s.closeWrite()
		}
		if err != nil {
			err = fmt.Errorf("application: %w", err)
			s.fail(err)
			return s.reason(err)
		}
	}
}

// download hands the application what the peer sends.
func (s *Stream) download(app net.Conn) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := s.w.Read(*buf)
		if n > 0 {
			s.received.Add(int64(n))
			if _, werr := app.Write((*buf)[:n]); werr != nil {
				werr = fmt.Errorf("application: %w", werr)
				s.fail(werr)
				return s.reason(werr)
			}
		}
		if err == io.EOF {
			if cw, ok := app.(interface{ CloseWrite() error }); ok {
				return cw.CloseWrite()
			}
			return app.Close()
		}
		if err != nil {
			err = s.reason(err)
			abort(app)
			s.fail(err)
			return err
		}
	}
}

// abort resets a connection.
func abort(c net.Conn) {
	if l, ok := c.(interface{ SetLinger(int) error }); ok {
		_ = l.SetLinger(0)
	}
	_ = c.Close()
}

// SendPayload sends the payload of an HTTP datagram. It waits while as many are
// waiting as there is room for. A *TooLargeError is one that the path does not take.
func (s *Stream) SendPayload(b []byte) error {
	err := s.w.SendDatagram(b)
	var large *quic.DatagramTooLargeError
	if errors.As(err, &large) {
		// What the library puts before it is the number of the stream.
		return &TooLargeError{Size: len(b), Max: max(0, int(large.MaxDatagramPayloadSize)-8)}
	}
	if err != nil {
		return s.reason(err)
	}
	s.sent.Add(int64(len(b)))
	return nil
}

// ReceivePayloads calls f for the payload of each HTTP datagram until the stream
// ends, and says why it did; nil when the peer ended it. more says that another one
// is there already.
func (s *Stream) ReceivePayloads(f func(b []byte, more bool) error) error {
	defer s.end()
	ctx, cancel := context.WithCancelCause(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// Nothing but its end is expected on the stream itself: capsules that are not
		// datagrams mean nothing to us.
		_, err := io.Copy(io.Discard, struct{ io.Reader }{s.w})
		if err == nil {
			err = io.EOF
		}
		cancel(err)
	}()
	err := s.receive(ctx, f)
	if err != io.EOF && !s.closed() {
		s.fail(mapped(err))
	}
	<-ended
	cancel(nil)
	if err == io.EOF {
		return nil
	}
	return s.reason(err)
}

func (s *Stream) receive(ctx context.Context, f func(b []byte, more bool) error) error {
	for {
		b, err := s.w.ReceiveDatagram(ctx)
		if err != nil {
			return err
		}
		for b != nil {
			s.received.Add(int64(len(b)))
			// An error is found again by who waits.
			next, _ := s.w.ReceiveDatagram(present{ctx})
			if err := f(b, next != nil); err != nil {
				return err
			}
			b = next
		}
	}
}

// present has the library give what is there and wait for nothing: a context that is
// over, which does not say so before anything was looked at.
type present struct{ context.Context }

var over = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// Done is closed.
func (present) Done() <-chan struct{} { return over }

// Err gives none.
func (present) Err() error { return nil }

// Value hides what would answer in the place of Err.
func (present) Value(any) any { return nil }

// End ends our direction: the peer's ReceivePayloads returns nil.
func (s *Stream) End() { _ = s.closeWrite() }

// fields gives the header fields in the form of internal/hbone.
func fields(h http.Header) []hbone.Field {
	out := make([]hbone.Field, 0, len(h))
	for name, values := range h {
		for _, v := range values {
			out = append(out, hbone.Field{Name: strings.ToLower(name), Value: v})
		}
	}
	return out
}

func header(fields []hbone.Field) http.Header {
	h := make(http.Header, len(fields))
	for _, f := range fields {
		h.Add(f.Name, f.Value)
	}
	return h
}

// answer reads a response: a *hbone.RefusedError if it is not a positive one.
func answer(resp *http.Response) (*hbone.Response, error) {
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		status := resp.Header.Get("Proxy-Status")
		if len(status) > 1<<10 {
			status = status[:1<<10] + "..."
		}
		return nil, &hbone.RefusedError{Status: resp.StatusCode, ProxyStatus: status}
	}
	return &hbone.Response{Fields: fields(resp.Header)}, nil
}

// aLongTimeAgo is a deadline that has passed.
var aLongTimeAgo = time.Unix(1, 0)
