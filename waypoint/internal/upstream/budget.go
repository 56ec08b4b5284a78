package upstream

import (
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/apis/waypoint"
)

// budget counts requests and retries of the recent past, so that retries stay a
// share of the requests (GEP-3388).
type budget struct {
	mu sync.Mutex
	// The interval is counted in slots, which are forgotten one by one.
	slots    [budgetSlots]slot // guarded by mu
	at       int               // guarded by mu
	began    time.Time         // of the present slot; guarded by mu
	interval time.Duration     // guarded by mu
	// Retries by the minimum rate.
	few      uint32    // guarded by mu
	fewSince time.Time // guarded by mu
}

const (
	budgetSlots           = 10
	defaultBudgetInterval = 10 * time.Second
)

type slot struct{ requests, retries uint64 }

// roll moves on to the present slot. The caller holds mu.
func (b *budget) roll(now time.Time) {
	if b.interval == 0 {
		b.interval = defaultBudgetInterval
	}
	step := b.interval / budgetSlots
	if b.began.IsZero() || now.Sub(b.began) > 2*b.interval {
		b.slots, b.began = [budgetSlots]slot{}, now
		return
	}
	for now.Sub(b.began) >= step {
		b.began = b.began.Add(step)
		b.at = (b.at + 1) % budgetSlots
		b.slots[b.at] = slot{}
	}
}

func (b *budget) request(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.roll(now)
	b.slots[b.at].requests++
}

// retry reports whether one more is within the budget, and counts it.
func (b *budget) retry(p *waypoint.RetryBudget, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if d := durationOr(p.GetInterval(), defaultBudgetInterval); d > 0 {
		b.interval = d
	}
	b.roll(now)
	var sum slot
	for _, s := range b.slots {
		sum.requests += s.requests
		sum.retries += s.retries
	}
	allowed := (sum.retries+1)*100 <= sum.requests*uint64(p.GetPercent())
	if !allowed && p.GetMinCount() > 0 {
		if now.Sub(b.fewSince) >= durationOr(p.GetMinInterval(), time.Second) {
			b.few, b.fewSince = 0, now
		}
		if allowed = b.few < p.GetMinCount(); allowed {
			b.few++
		}
	}
	if allowed {
		b.slots[b.at].retries++
	}
	return allowed
}
