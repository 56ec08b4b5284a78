package upstream

import (
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/apis/waypoint"
)

// health is what is known of an endpoint from how it answers (outlier detection)
// and from probes.
type health struct {
	failures  atomic.Int32 // in a row
	ejections atomic.Int32 // how often it was ejected, less what time forgave
	ejected   atomic.Int64 // until when, in nanoseconds
	unhealthy atomic.Bool  // by probes
}

// out reports whether the endpoint gets no requests.
func (h *health) out(now time.Time) bool {
	return h.unhealthy.Load() || h.ejected.Load() > now.UnixNano()
}

const (
	defaultBaseEjection = 30 * time.Second
	defaultMaxEjection  = 300 * time.Second
	defaultMaxEjected   = 10 // percent
)

// outlier counts how an endpoint answered and ejects it when it has failed too
// often in a row, for longer each time. At least one endpoint may always be
// ejected, and at least one always stays.
func (c *Cluster) outlier(e *Endpoint, failed bool, now time.Time) {
	p := c.policy.Load().GetOutlierDetection()
	if p.GetConsecutiveFailures() == 0 {
		return
	}
	if !failed {
		e.health.failures.Store(0)
		return
	}
	if n := e.health.failures.Add(1); n < int32(min(p.GetConsecutiveFailures(), 1<<30)) {
		return
	}
	c.ejecting.Lock()
	defer c.ejecting.Unlock()
	if e.health.out(now) || !c.mayEject(p, now) {
		return
	}
	e.health.failures.Store(0)
	base, limit := durationOr(p.GetBaseEjection(), defaultBaseEjection), durationOr(p.GetMaxEjection(), defaultMaxEjection)
	// Endpoints that have behaved for a while start again at the beginning.
	if last := e.health.ejected.Load(); last != 0 && now.UnixNano()-last > int64(limit) {
		e.health.ejections.Store(0)
	}
	times := e.health.ejections.Add(1)
	e.health.ejected.Store(now.Add(min(time.Duration(times)*base, limit)).UnixNano())
	c.set.metrics.ejections.WithLabelValues(c.key.service).Inc()
}

// mayEject reports whether one more endpoint may be out. The caller holds
// ejecting.
func (c *Cluster) mayEject(p *waypoint.OutlierDetection, now time.Time) bool {
	all := c.snapshot.Load().endpoints
	out := 0
	for _, e := range all {
		if e.health.out(now) {
			out++
		}
	}
	share := int(p.GetMaxEjected())
	if share == 0 {
		share = defaultMaxEjected
	}
	return out+1 < len(all) && (out == 0 || (out+1)*100 <= share*len(all))
}
