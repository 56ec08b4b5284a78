package zds

import (
	"context"
	"sync"
	"time"
)

// order lets ztunnels that serve pods hand over their sockets before others are given
// the pods, when an agent has started anew and holds no sockets. Otherwise the others
// would open sockets beside, and the connections in the queues of those that end would
// be lost.
type order struct {
	mu      sync.Mutex
	serving int  // that have not been told of all pods yet; guarded by mu
	over    bool // nobody else is waited for; guarded by mu
	once    sync.Once
	open    chan struct{} // closed when others may be given pods
}

func newOrder() *order { return &order{open: make(chan struct{})} }

// begin bounds the wait. stop ends that.
func (o *order) begin(wait time.Duration) (stop func() bool) {
	return time.AfterFunc(wait, func() { o.change(0, true) }).Stop
}

// serves is called for a ztunnel that serves pods; done when it was told of all pods,
// or has gone.
func (o *order) serves() (done func()) {
	o.change(1, false)
	return sync.OnceFunc(func() { o.change(-1, true) })
}

func (o *order) change(serving int, over bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.serving += serving
	o.over = o.over || over
	if o.over && o.serving == 0 {
		o.once.Do(func() { close(o.open) })
	}
}

// await waits for the turn of a ztunnel that serves no pods. Answers end it: there is
// nothing to answer yet.
func (o *order) await(ctx context.Context, answers <-chan answer) error {
	select {
	case <-o.open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case a := <-answers:
		if a.err == nil {
			closeAll(a.fds)
			a.err = malformed("an answer to no request")
		}
		return a.err
	}
}
