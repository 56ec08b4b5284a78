package proxy

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/internal/message"
)

// idleWatch ends what neither side has sent anything on for too long. A nil
// *idleWatch does nothing.
type idleWatch struct {
	limit time.Duration
	last  atomic.Int64 // when something was sent, in nanoseconds since begun
	begun time.Time
	timer *time.Timer
	end   func(error)
}

// watchIdle calls end, once and from another goroutine, when nothing has been sent
// for limit, until it is stopped.
func watchIdle(what string, limit time.Duration, end func(error)) *idleWatch {
	if limit <= 0 {
		return nil
	}
	w := &idleWatch{limit: limit, begun: time.Now(), end: end}
	armed := make(chan struct{})
	w.timer = time.AfterFunc(limit, func() {
		<-armed
		if left := w.limit - w.quiet(); left > 0 {
			w.timer.Reset(left)
			return
		}
		w.end(timeoutError{timeoutIdle, what, limit})
	})
	close(armed)
	return w
}

// touch notes that something was sent.
func (w *idleWatch) touch() {
	if w != nil {
		w.last.Store(int64(time.Since(w.begun)))
	}
}

// quiet is for how long nothing has been sent.
func (w *idleWatch) quiet() time.Duration { return time.Since(w.begun) - time.Duration(w.last.Load()) }

func (w *idleWatch) stop() {
	if w != nil {
		w.timer.Stop()
	}
}

// watchIdle bounds the silence on a request by the rule; ctx ends with it.
func (x *exchange) watchIdle(ctx context.Context) (context.Context, func()) {
	limit := x.decision.Rule.Timeouts.Idle.Or(0)
	if limit <= 0 {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	x.idle = watchIdle("a pause", limit, cancel)
	if x.req.Body != nil {
		x.req.Body = &watchedBody{x.req.Body, x.idle}
	}
	return ctx, func() {
		x.idle.stop()
		cancel(nil)
	}
}

// watchedBody tells when something of it has come.
type watchedBody struct {
	message.Body
	idle *idleWatch
}

// Read implements message.Body.
func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.Body.Read(p)
	if n > 0 {
		b.idle.touch()
	}
	return n, err
}
