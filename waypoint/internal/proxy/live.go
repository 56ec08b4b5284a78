package proxy

import (
	"context"
	"sync"
)

// live are the connections that outlast the decision by which they were let in:
// what is passed on as it is, and upgrades. They are asked about again when
// policies change.
type live struct {
	mu    sync.Mutex
	conns map[*lasting]struct{} // guarded by mu
}

// lasting is one of them.
type lasting struct {
	// allowed asks the policies of now.
	allowed func() error
	// cut ends the connection, for a reason.
	cut func(error)
}

// add keeps a connection until it is forgotten.
func (l *live) add(c *lasting) (forget func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		l.conns = make(map[*lasting]struct{})
	}
	l.conns[c] = struct{}{}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.conns, c)
	}
}

func (l *live) all() []*lasting {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]*lasting, 0, len(l.conns))
	for c := range l.conns {
		out = append(out, c)
	}
	return out
}

// Run asks again at each change until ctx ends.
func (p *Proxy) Run(ctx context.Context) error {
	for {
		changed, bound := p.cfg.Store.Changed(), p.cfg.Frontends.Changed()
		p.release()
		for _, c := range p.live.all() {
			if err := c.allowed(); err != nil {
				c.cut(err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-bound:
		}
	}
}
