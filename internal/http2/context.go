package http2

import (
	"context"
	"sync"
	"time"
)

// streamContext is the context of one request. It costs nothing until somebody
// waits for it, and is found by context.WithCancel and AfterFunc without a
// goroutine.
type streamContext struct {
	parent context.Context // for values and the deadline; the stream ends with it

	mu    sync.Mutex
	done  chan struct{} // nil until somebody waits; guarded by mu
	err   error         // guarded by mu
	after []*func()     // guarded by mu
}

var _ context.Context = (*streamContext)(nil)

// Deadline implements context.Context.
func (x *streamContext) Deadline() (time.Time, bool) { return x.parent.Deadline() }

// Value implements context.Context.
func (x *streamContext) Value(key any) any { return x.parent.Value(key) }

// Done implements context.Context.
func (x *streamContext) Done() <-chan struct{} {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.done == nil {
		x.done = make(chan struct{})
		if x.err != nil {
			close(x.done)
		}
	}
	return x.done
}

// Err implements context.Context.
func (x *streamContext) Err() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.err
}

// AfterFunc has f run in a goroutine of its own when the context ends. Package
// context looks for this method.
func (x *streamContext) AfterFunc(f func()) (stop func() bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err != nil {
		go f()
		return func() bool { return false }
	}
	p := &f
	x.after = append(x.after, p)
	return func() bool { return x.forget(p) }
}

func (x *streamContext) forget(p *func()) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, q := range x.after {
		if q == p {
			last := len(x.after) - 1
			x.after[i] = x.after[last]
			x.after[last] = nil
			x.after = x.after[:last]
			return true
		}
	}
	return false
}

// end cancels the context.
func (x *streamContext) end() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err != nil {
		return
	}
	x.err = context.Canceled
	if x.done != nil {
		close(x.done)
	}
	for _, f := range x.after {
		go (*f)()
	}
	x.after = nil
}
