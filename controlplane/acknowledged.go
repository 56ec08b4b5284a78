package controlplane

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/controlplane/compile"
)

// release confirms releases when every ztunnel knows that there is no tunnel to
// the pods any more, or has had its time to know: one that is disconnected just now
// is waited for, too. Just after the start it first gives the ztunnels time to connect.
func (e *engine) release(ctx context.Context, version uint64, releases []compile.Release) {
	grace := time.NewTimer(time.Until(e.started.Add(e.releaseTimeout)))
	defer grace.Stop()
	select {
	case <-grace.C:
	case <-ctx.Done():
		return
	}
	bounded, cancel := context.WithTimeout(ctx, e.releaseTimeout)
	defer cancel()
	behind, err := e.clients.KnownTo(bounded, compile.TypeAddress, version)
	outcome := "acknowledged"
	if err != nil {
		outcome = "timeout"
		e.log.Warn("pods are released though some nodes have not acknowledged it; their connections to these pods may fail", zap.Strings("nodes", behind), zap.Int("pods", len(releases)))
	}
	e.metrics.releases.WithLabelValues(outcome).Add(float64(len(releases)))
	if e.shared != nil {
		if e.accompaniedLately() {
			// Clients of other replicas have the same time, because what those
			// know of them they tell nobody.
			<-bounded.Done()
		}
		e.shared.Release(ctx, releases)
		return
	}
	select {
	case e.inbox <- message{input: compile.Input{Released: releases}}:
	case <-ctx.Done():
	}
}

// accompaniedLately says whether clients may be connected to another replica, or
// were until so lately that they need not have come here yet.
func (e *engine) accompaniedLately() bool {
	if e.company != nil && e.company() {
		return true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return time.Since(e.accompanied) < e.releaseTimeout
}

// measure times a change to its last acknowledgement, unless so many are under
// way that nothing would be learned.
func (e *engine) measure(ctx context.Context, since time.Time, version uint64, d compile.Delta) {
	types := make(map[string]struct{})
	for _, r := range d.Updated {
		types[r.Type] = struct{}{}
	}
	for _, k := range d.Removed {
		types[k.Type] = struct{}{}
	}
	if len(types) == 0 || e.clients.Connected() == 0 {
		return
	}
	select {
	case e.measuring <- struct{}{}:
	default:
		return
	}
	e.followers.Go(func() {
		defer func() { <-e.measuring }()
		bounded, cancel := context.WithTimeout(ctx, measureFor)
		defer cancel()
		for t := range types {
			if _, err := e.clients.AckedBy(bounded, t, version); err != nil {
				return
			}
		}
		e.metrics.editToAck.Observe(time.Since(since).Seconds())
	})
}
