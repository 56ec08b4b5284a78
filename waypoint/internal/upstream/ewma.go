package upstream

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	// memory is how long an answer counts in the average of an endpoint.
	memory = 10 * time.Second
	// failureCost is what a failure counts as at least: an endpoint that fails
	// fast must not look like a fast one.
	failureCost = 100 * time.Millisecond
	// coldCost makes an endpoint that has not answered yet, and has requests under
	// way, dear: it gets one request to show how it does.
	coldCost = float64(time.Second)
)

// latency is a moving average of response times that follows a slower answer at
// once and a faster one gradually (peak EWMA). Safe for concurrent use.
type latency struct {
	value atomic.Uint64 // float64 of nanoseconds; 0 is none yet
	at    atomic.Int64  // when, in nanoseconds
}

func (l *latency) observe(d time.Duration, now time.Time) {
	sample := float64(max(d, time.Microsecond))
	for {
		old := l.value.Load()
		v := math.Float64frombits(old)
		next := sample
		if old != 0 && sample < v {
			since := now.UnixNano() - l.at.Load()
			w := math.Exp(-float64(max(since, 0)) / float64(memory))
			next = v*w + sample*(1-w)
		}
		if l.value.CompareAndSwap(old, math.Float64bits(next)) {
			l.at.Store(now.UnixNano())
			return
		}
	}
}

// cost of one more request with n under way.
func (l *latency) cost(n int64) float64 {
	v := math.Float64frombits(l.value.Load())
	if v == 0 {
		if n == 0 {
			return 0
		}
		return coldCost * float64(n)
	}
	return v * float64(n+1)
}
