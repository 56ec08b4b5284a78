package wds

import (
	"math"
	"sync/atomic"
	"time"
)

// load is what this proxy knows of how busy a workload is: connections that are
// open to it, and how long it took to set them up lately.
type load struct {
	active atomic.Int64
	// setup is an exponentially weighted moving average in nanoseconds, as the bits of
	// a float64; 0 while nothing was observed. at is when it was last updated.
	setup atomic.Uint64
	at    atomic.Int64
}

const (
	// setupMemory is the time after which an observation counts for 1/e.
	setupMemory = 10 * time.Second
	// setupFloor is the time below which set-up times do not differ: on a quiet
	// network they are noise.
	setupFloor = 2 * time.Millisecond
	// setupFailed is what an attempt that failed counts as, at least.
	setupFailed = time.Second
)

// observe takes a set-up time into the average.
func (l *load) observe(took time.Duration, now time.Time) {
	for {
		old, last := l.setup.Load(), l.at.Load()
		next := float64(took)
		if old != 0 {
			age := max(0, now.UnixNano()-last)
			// An observation weighs at least a tenth, however close to the last.
			keep := min(0.9, math.Exp(-float64(age)/float64(setupMemory)))
			next = math.Float64frombits(old)*keep + next*(1-keep)
		}
		if l.setup.CompareAndSwap(old, math.Float64bits(next)) {
			l.at.Store(now.UnixNano())
			return
		}
	}
}

// latency gives the average as it counts at a time: what is old is forgotten, so
// that an endpoint that was slow once is tried again.
func (l *load) latency(now int64) float64 {
	v := math.Float64frombits(l.setup.Load())
	if age := now - l.at.Load(); age > int64(setupMemory) {
		v *= math.Exp(-float64(age-int64(setupMemory)) / float64(setupMemory))
	}
	return max(v, float64(setupFloor))
}

// cost is what the next connection to the workload would meet, by its weight.
func (w *Workload) cost(now int64) float64 {
	return float64(w.load.active.Load()+1) * w.load.latency(now) / float64(max(1, w.Capacity))
}

// Opened notes a connection to the workload until the returned function is called.
func (w *Workload) Opened() (closed func()) {
	w.load.active.Add(1)
	return func() { w.load.active.Add(-1) }
}

// Active gives the number of connections noted by Opened.
func (w *Workload) Active() int64 { return w.load.active.Load() }

// Reached notes how long it took to set up a connection to the workload, or that it
// failed.
func (w *Workload) Reached(took time.Duration, failed bool) {
	if failed {
		took = max(took, setupFailed)
	}
	w.load.observe(took, time.Now())
}
