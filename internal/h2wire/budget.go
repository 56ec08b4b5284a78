package h2wire

import "time"

// How many frames of a budget may come in a burst, and how many more a second.
const (
	budgetBurst  = 2000
	budgetPerSec = 500
)

// Budget bounds the frames that cost us work and the peer nothing, RFC 9113
// section 10.5. It is used by one goroutine.
type Budget struct {
	tokens float64
	filled time.Time
}

// NewBudget gives a full budget.
func NewBudget() Budget { return Budget{tokens: budgetBurst, filled: time.Now()} }

// Spend takes n from the budget and reports whether it was there.
func (b *Budget) Spend(n float64) bool {
	if b.tokens -= n; b.tokens >= 0 {
		return true
	}
	now := time.Now()
	b.tokens = min(budgetBurst, b.tokens+now.Sub(b.filled).Seconds()*budgetPerSec)
	b.filled = now
	return b.tokens >= 0
}

// Earn puts n into the budget, as far as it has room.
func (b *Budget) Earn(n float64) { b.tokens = min(budgetBurst, b.tokens+n) }
