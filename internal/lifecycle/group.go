package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Runner runs until ctx ends, and then returns nil. Any return before that ends
// the group that it belongs to.
type Runner interface {
	Run(ctx context.Context) error
}

// RunnerFunc makes a Runner of a function.
type RunnerFunc func(ctx context.Context) error

// Run calls f.
func (f RunnerFunc) Run(ctx context.Context) error { return f(ctx) }

// Group is an ordered set of runners. The zero Group is ready for use. Add
// everything before Run.
type Group struct {
	// StopTimeout bounds the stopping of each runner; 10 s when zero.
	StopTimeout time.Duration

	members []*member
}

type member struct {
	name   string
	runner Runner
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

// Add appends a runner. The name appears in errors.
func (g *Group) Add(name string, r Runner) {
	g.members = append(g.members, &member{name: name, runner: r, done: make(chan struct{})})
}

// Run starts the runners in the order of Add and blocks until ctx ends or one
// of them returns. It then stops them in reverse order, each wholly before the
// next, and returns what went wrong, nil for an orderly end.
func (g *Group) Run(ctx context.Context) error {
	first := make(chan *member, len(g.members))
	for _, m := range g.members {
		// A member must not end with the parent: later members may still need it.
		mctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		m.cancel = cancel
		go func() {
			defer close(m.done)
			m.err = m.runner.Run(mctx)
			first <- m
		}()
	}
	var errs []error
	select {
	case <-ctx.Done():
	case m := <-first:
		if m.err == nil {
			errs = append(errs, fmt.Errorf("%s ended unexpectedly", m.name))
		}
	}
	timeout := g.StopTimeout
	if timeout == 0 {
		timeout = 10 * time.Second
	}
	for i := len(g.members) - 1; i >= 0; i-- {
		m := g.members[i]
		m.cancel()
		timer := time.NewTimer(timeout)
		select {
		case <-m.done:
			if m.err != nil && !errors.Is(m.err, context.Canceled) {
				errs = append(errs, fmt.Errorf("%s: %w", m.name, m.err))
			}
		case <-timer.C:
			errs = append(errs, fmt.Errorf("%s did not stop within %s", m.name, timeout))
		}
		timer.Stop()
	}
	return errors.Join(errs...)
}
