package proxy

import (
	"sync"
	"sync/atomic"
	"time"
)

// For how long nothing must have moved in a session of datagrams that ends because its
// client is to go elsewhere: hardly at all where the last datagram was an answer, and as
// long as askers commonly wait (resolv.conf(5): 5 s) where one may still be on its way.
const (
	restAnswered = 250 * time.Millisecond
	restAsked    = 5 * time.Second
)

// rest ends a session of datagrams whose client is asked to go elsewhere when the session
// is at rest. There is no such thing as the end of a session that either side would tell,
// and the client's node begins a new one, by the way of then, with the next datagram: all
// that can be lost is one that comes in the moment of the end.
type rest struct {
	idle     *idleWatch // of the session
	end      func()
	answered atomic.Bool // by what moved last

	mu      sync.Mutex
	timer   *time.Timer // guarded by mu; nil until the client is asked to go
	stopped bool        // guarded by mu
}

// moved notes that a datagram came; answer says that it came from the backend.
func (r *rest) moved(answer bool) {
	r.idle.touch()
	if r.answered.Load() == answer {
		return
	}
	r.answered.Store(answer)
	if answer {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.timer != nil && !r.stopped {
			r.timer.Reset(restAnswered)
		}
	}
}

// left is for how much longer the session must be at rest.
func (r *rest) left() time.Duration {
	limit := restAsked
	if r.answered.Load() {
		limit = restAnswered
	}
	return limit - r.idle.quiet()
}

// Drain implements drainer.
func (r *rest) Drain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer == nil && !r.stopped {
		r.timer = time.AfterFunc(max(0, r.left()), r.look)
	}
}

func (r *rest) look() {
	r.mu.Lock()
	ends := !r.stopped && r.left() <= 0
	switch {
	case ends:
		r.stopped = true
	case !r.stopped:
		r.timer.Reset(r.left())
	}
	r.mu.Unlock()
	if ends {
		r.end()
	}
}

// stop has the session not be ended any more.
func (r *rest) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
	if r.timer != nil {
		r.timer.Stop()
	}
}
