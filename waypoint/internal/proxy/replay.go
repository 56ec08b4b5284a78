package proxy

import (
	"errors"
	"io"
	"sync"

	"github.com/ambit-mesh/ambit/internal/message"
)

// errAbandoned is what a try reads of a body that another try has taken over.
var errAbandoned = errors.New("the request is tried elsewhere")

// errNotKept is a body that was too long to be sent again.
var errNotKept = errors.New("body was not kept")

// replay keeps the beginning of a request's body, so that the request can be sent
// again while all of what was sent is in there.
type replay struct {
	src   message.Body
	limit int

	mu      sync.Mutex
	changed sync.Cond
	kept    []byte // guarded by mu
	dropped bool   // more was read than is kept: there is one reader only; guarded by mu
	reading bool   // somebody reads from src; guarded by mu
	err     error  // io.EOF when all is there; guarded by mu
	turn    *try   // who may read; guarded by mu
}

func newReplay(src message.Body, limit int) *replay {
	r := &replay{src: src, limit: limit}
	r.changed.L = &r.mu
	return r
}

// try is the body as one attempt reads it.
type try struct {
	r  *replay
	at int
}

// next gives the body to another attempt; nil if it cannot be sent from the
// beginning any more.
func (r *replay) next() *try {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dropped {
		return nil
	}
	t := &try{r: r}
	r.turn = t
	r.changed.Broadcast()
	return t
}

// repeatable reports whether the body can be sent from the beginning.
func (r *replay) repeatable() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.dropped
}

// whole gives the body if it has come to its end and was kept.
func (r *replay) whole() ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.kept, !r.dropped && r.err == io.EOF
}

// Read implements message.Body.
func (t *try) Read(p []byte) (int, error) {
	r := t.r
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		switch {
		case r.turn != t:
			return 0, errAbandoned
		case t.at < len(r.kept):
			n := copy(p, r.kept[t.at:])
			t.at += n
			return n, nil
		case r.err != nil:
			return 0, r.err
		case !r.reading:
			n, err := r.fetch(t, p)
			if n > 0 || err != nil {
				return n, err
			}
		default:
			r.changed.Wait()
		}
	}
}

// fetch reads from the client. Bytes that are not kept go to p at once; n is 0
// for those that are. The caller holds mu.
func (r *replay) fetch(t *try, p []byte) (int, error) {
	r.reading = true
	r.mu.Unlock()
	n, err := r.src.Read(p)
	r.mu.Lock()
	r.reading = false
	defer r.changed.Broadcast()
	if err != nil {
		r.err = err
	}
	if n == 0 {
		return 0, nil
	}
	if !r.dropped && len(r.kept)+n <= r.limit {
		r.kept = append(r.kept, p[:n]...)
		return 0, nil
	}
	if r.turn != t {
		// Bytes that are lost to the try that has taken over.
		r.dropped, r.kept, r.err = true, nil, errNotKept
		return 0, errAbandoned
	}
	r.dropped, r.kept = true, nil
	t.at = 0
	return n, nil
}

// Buffered implements message.Body.
func (t *try) Buffered() int {
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	n := len(t.r.kept) - t.at
	if t.r.turn != t || n < 0 {
		return 0
	}
	if t.r.err == nil && !t.r.reading {
		n += t.r.src.Buffered()
	}
	return n
}

// Trailers implements message.Body.
func (t *try) Trailers() message.Fields { return t.r.src.Trailers() }

// Close implements message.Body: the body stays for another try.
func (t *try) Close() error {
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	if t.r.turn == t {
		t.r.turn = nil
	}
	t.r.changed.Broadcast()
	return nil
}
