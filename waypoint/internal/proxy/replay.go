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

// fetchSize is what is read of a body at a time while it is kept.
const fetchSize = 16 << 10

// replay keeps the beginning of a request's body, so that the request can be sent
// again while all of what was sent is in there. A body that grows beyond the limit
// is read straight from then on, by the try whose turn it is.
//
// A try that ends must not wait for a client that sends nothing (message.Body,
// Close), and what that client sends later is the next try's. So where there is
// something to wait for, a goroutine waits, for all tries; it ends with the body.
type replay struct {
	src   message.Body
	limit int

	mu       sync.Mutex
	changed  sync.Cond
	kept     []byte // guarded by mu
	straight bool   // kept is not the whole beginning of what was sent any more; guarded by mu
	fetching bool   // a goroutine waits for the client; guarded by mu
	err      error  // what the last read gave: io.EOF when all is there; guarded by mu
	turn     *try   // who may read; guarded by mu
	wg       sync.WaitGroup
}

func newReplay(src message.Body, limit int) *replay {
	r := &replay{src: src, limit: limit}
	r.changed.L = &r.mu
	return r
}

// close ends the body and waits until nobody reads it.
func (r *replay) close() {
	_ = r.src.Close()
	r.wg.Wait()
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
	if r.straight {
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
	return !r.straight
}

// whole gives the body if it has come to its end and was kept.
func (r *replay) whole() ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.kept, !r.straight && r.err == io.EOF
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
			if t.at += n; t.at == len(r.kept) && r.err != nil {
				return n, r.err
			}
			return n, nil
		case r.err != nil:
			return 0, r.err
		case r.straight:
			r.kept, t.at = nil, 0
			return r.readStraight(p)
		case r.fetching:
			r.changed.Wait()
		case r.src.Buffered() > 0:
			r.fetchLocked()
		default:
			r.fetching = true
			r.wg.Go(r.fetch)
		}
	}
}

// readStraight reads for the only try that there will be. The caller holds mu.
func (r *replay) readStraight(p []byte) (int, error) {
	r.mu.Unlock()
	n, err := r.src.Read(p)
	r.mu.Lock()
	return n, err
}

// fetch waits for the client.
func (r *replay) fetch() {
	buf := make([]byte, fetchSize)
	n, err := r.src.Read(buf)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fetching = false
	r.keep(buf[:n], err)
	r.changed.Broadcast()
}

// fetchLocked takes what is there. The caller holds mu.
func (r *replay) fetchLocked() {
	if cap(r.kept)-len(r.kept) < fetchSize {
		grown := make([]byte, len(r.kept), max(2*cap(r.kept), min(r.src.Buffered(), r.limit), len(r.kept)+fetchSize/8))
		copy(grown, r.kept)
		r.kept = grown
	}
	room := r.kept[len(r.kept):cap(r.kept)]
	n, err := r.src.Read(room[:min(len(room), fetchSize)])
	r.kept = r.kept[:len(r.kept)+n]
	r.noted(err)
}

func (r *replay) keep(p []byte, err error) {
	r.kept = append(r.kept, p...)
	r.noted(err)
}

func (r *replay) noted(err error) {
	if err != nil {
		r.err = err
	}
	if len(r.kept) > r.limit {
		r.straight = true
	}
}

// Buffered implements message.Body.
func (t *try) Buffered() int {
	r := t.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.turn != t {
		return 0
	}
	n := len(r.kept) - t.at
	if r.err == nil && !r.fetching {
		n += r.src.Buffered()
	}
	return n
}

// Trailers implements message.Body.
func (t *try) Trailers() message.Fields { return t.r.src.Trailers() }

// Close implements message.Body: the body stays for another try, if there can be
// one.
func (t *try) Close() error {
	r := t.r
	r.mu.Lock()
	mine, straight := r.turn == t, r.straight
	if mine {
		r.turn = nil
	}
	r.changed.Broadcast()
	r.mu.Unlock()
	if mine && straight {
		return r.src.Close()
	}
	return nil
}
