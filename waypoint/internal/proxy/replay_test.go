package proxy

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/ambit-mesh/ambit/internal/message"
)

// clientBody is a body that comes as the test says.
type clientBody struct {
	r *io.PipeReader
	w *io.PipeWriter
}

func newClientBody() *clientBody {
	r, w := io.Pipe()
	return &clientBody{r, w}
}

func (b *clientBody) Read(p []byte) (int, error) { return b.r.Read(p) }
func (b *clientBody) Buffered() int              { return 0 }
func (b *clientBody) Trailers() message.Fields   { return nil }
func (b *clientBody) Close() error               { return b.r.CloseWithError(io.ErrClosedPipe) }

func TestReplaySendsTheSameAgain(t *testing.T) {
	text := strings.Repeat("0123456789", 5000)
	r := newReplay(message.BytesBody([]byte(text)), 64<<10)
	defer r.close()
	for range 3 {
		got, err := io.ReadAll(r.next())
		if err != nil || string(got) != text {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	if kept, ok := r.whole(); !ok || string(kept) != text {
		t.Errorf("kept %d bytes, whole: %v", len(kept), ok)
	}
}

func TestReplayOfALongBodyIsRefused(t *testing.T) {
	text := strings.Repeat("0123456789", 50000)
	r := newReplay(message.BytesBody([]byte(text)), 64<<10)
	defer r.close()
	got, err := io.ReadAll(r.next())
	if err != nil || string(got) != text {
		t.Fatalf("the first try read %d bytes, %v", len(got), err)
	}
	if r.next() != nil || r.repeatable() {
		t.Error("a body that was not kept can be sent again")
	}
}

// A try that is given up while it waits for the client ends at once, and what the
// client then sends is the next try's.
func TestReplayGivesUpATry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newClientBody()
		r := newReplay(src, 64<<10)
		first := r.next()
		ended := make(chan error)
		go func() {
			_, err := first.Read(make([]byte, 10))
			ended <- err
		}()
		synctest.Wait()
		second := r.next()
		if err := <-ended; !errors.Is(err, errAbandoned) {
			t.Errorf("the first try ended with %v", err)
		}
		go func() {
			_, _ = src.w.Write([]byte("late"))
			_ = src.w.Close()
		}()
		if got, err := io.ReadAll(second); string(got) != "late" || err != nil {
			t.Errorf("the second try read %q, %v", got, err)
		}
		r.close()
	})
}

func TestReplayEndsWithTheExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newClientBody()
		r := newReplay(src, 64<<10)
		first := r.next()
		ended := make(chan error)
		go func() {
			_, err := first.Read(make([]byte, 10))
			ended <- err
		}()
		synctest.Wait()
		r.close()
		if err := <-ended; err == nil {
			t.Error("a body that was closed gave bytes")
		}
	})
}
