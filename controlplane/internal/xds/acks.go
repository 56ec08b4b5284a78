package xds

import (
	"context"
	"slices"
	"time"
)

// AckedBy waits until every subscriber of a type that is connected now has
// acknowledged everything up to a version, or is gone. When ctx ends first it
// gives the nodes that have not.
func (s *Server) AckedBy(ctx context.Context, typeURL string, version uint64) (behind []string, err error) {
	return s.await(ctx, func(a *admitted) bool { return !a.lacks(typeURL, version) })
}

// KnownTo waits until every node that subscribes to a type, or did until not long
// ago, has acknowledged everything up to a version: one whose stream is broken just
// now goes on with what it knew. When ctx ends first it gives the nodes that have not.
func (s *Server) KnownTo(ctx context.Context, typeURL string, version uint64) (behind []string, err error) {
	return s.await(ctx, func(a *admitted) bool { return !a.lacks(typeURL, version) && !a.misses(typeURL, s.cfg.AbsentFor) })
}

// await waits until all callers that are not settled have been settled once.
func (s *Server) await(ctx context.Context, settled func(*admitted) bool) (behind []string, err error) {
	s.mu.Lock()
	for name, a := range s.admission {
		if !settled(a) {
			behind = append(behind, name)
		}
	}
	s.mu.Unlock()
	for {
		s.mu.Lock()
		moved := s.moves
		behind = slices.DeleteFunc(behind, func(name string) bool {
			a := s.admission[name]
			return a == nil || settled(a)
		})
		s.mu.Unlock()
		if len(behind) == 0 {
			return nil, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			slices.Sort(behind)
			return behind, context.Cause(ctx)
		}
	}
}

// lacks says whether a stream that subscribes to a type has not acknowledged a
// version.
func (a *admitted) lacks(typeURL string, version uint64) bool {
	return slices.ContainsFunc(a.streams, func(c *client) bool { return c.report.lacks(typeURL, version) })
}

// misses says whether a subscriber of a type has left, at most so long ago, and
// none has come in its place.
func (a *admitted) misses(typeURL string, atMost time.Duration) bool {
	at, was := a.left[typeURL]
	return was && time.Since(at) < atMost && !slices.ContainsFunc(a.streams, func(c *client) bool {
		_, subscribes := c.report.position(typeURL)
		return subscribes
	})
}

// missed says whether it misses a subscriber of any type.
func (a *admitted) missed(atMost time.Duration) bool {
	for t := range a.left {
		if a.misses(t, atMost) {
			return true
		}
	}
	return false
}

// remove takes out a stream that has ended.
func (a *admitted) remove(c *client) {
	a.streams = slices.DeleteFunc(a.streams, func(o *client) bool { return o == c })
	if c.caller.Workload != nil {
		return
	}
	for _, t := range c.report.snapshot().Types {
		a.left[t.Type] = time.Now()
	}
}
