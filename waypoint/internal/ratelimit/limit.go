package ratelimit

import (
	"math"
	"time"

	"github.com/ambit-mesh/ambit/apis/waypoint"
)

// Limit is a rate.
type Limit struct {
	// Policy is <namespace>/<name> of the object, Rule the rule in it.
	Policy, Rule string
	// Requests in each Unit.
	Requests uint32
	Unit     time.Duration
	// Burst is how many may come at once; 0: Requests.
	Burst uint32
}

// name gives the limit as answers and reasons have it.
func (l *Limit) name() string { return limitName(l.Policy, l.Rule) }

func limitName(policy, rule string) string {
	if rule == "" {
		return policy
	}
	return policy + "/" + rule
}

// Entry is a part of a descriptor.
type Entry struct{ Key, Value string }

// Global says who counts a limit.
type Global struct {
	Backend *waypoint.BackendRef
	Domain  string
	// Timeout of a call; 0: DefaultTimeout.
	Timeout time.Duration
	// FailOpen lets requests through while the service cannot be asked.
	FailOpen bool
}

// DefaultTimeout is how long a rate limit service has to answer.
const DefaultTimeout = 100 * time.Millisecond

// Ask is a limit that a request is under.
type Ask struct {
	Limit Limit
	// Key of the bucket, for a limit that is counted here.
	Key string
	// Global is nil for a limit that is counted here.
	Global *Global
	// Entries of the descriptor, for a global limit.
	Entries []Entry
}

// Verdict is what one limit says.
type Verdict struct {
	Policy, Rule string
	OK           bool
	// Shared says that the key had no bucket of its own.
	Shared bool
	// Limit is how many requests are let through in each Window. Window is 0 when
	// that is not known.
	Limit  uint64
	Window time.Duration
	// Remaining is how many more would be let through at once.
	Remaining uint64
	// Reset is when the limit will be as if nothing had been used; of a limit that
	// refuses, when it lets the next one through.
	Reset time.Duration
	// RetryAfter is when a request that is refused would be let through; 0: not
	// known, or never.
	RetryAfter time.Duration
}

// rate is a Limit in the terms of the algorithm.
type rate struct {
	// step is how long it takes to get a token, in nanoseconds; 0: for ever. It is
	// rounded up, so that a limit is never exceeded.
	step int64
	// full is how long an empty bucket takes to fill.
	full int64
}

// longest keeps sums of two durations within int64.
const longest = math.MaxInt64 / 4

func rateOf(l *Limit) rate {
	if l.Requests == 0 || l.Unit <= 0 {
		return rate{}
	}
	n := int64(l.Requests)
	burst := int64(l.Burst)
	if burst == 0 {
		burst = n
	}
	step := min(int64(l.Unit)/n, longest-1)
	if int64(l.Unit)%n != 0 {
		step++
	}
	if step > longest/burst {
		return rate{step: step, full: max(longest/step, 1) * step}
	}
	return rate{step: step, full: step * burst}
}

// level is the state of a bucket. The zero level is a full bucket.
type level struct {
	// filled is when the bucket will be full, in nanoseconds of the Local's clock:
	// the theoretical arrival time of GCRA.
	filled int64
	// step of the rate that filled was reckoned with.
	step int64
}

// idle reports whether forgetting the level makes no difference.
func (v *level) idle(now int64) bool { return v.filled <= now }

// settle brings the level to the rate r and gives how far it is from full. What was
// used at another rate counts as many tokens as it did then, and from now on comes
// back at r.
func (v *level) settle(r rate, now int64) int64 {
	debt := max(v.filled-now, 0)
	if v.step != r.step && v.step != 0 && debt > 0 {
		tokens := float64(debt) / float64(v.step)
		debt = int64(min(tokens*float64(r.step), float64(r.full)))
	}
	// Time does not go back, but should it do so a bucket is empty at worst.
	debt = min(debt, r.full)
	v.filled, v.step = now+debt, r.step
	return debt
}

// judge says what a bucket has for one more request. It takes nothing.
func (v *level) judge(l *Limit, r rate, now int64, out *Verdict) {
	*out = Verdict{Policy: l.Policy, Rule: l.Rule, Limit: uint64(l.Requests), Window: l.Unit}
	if r.step == 0 {
		return
	}
	debt := v.settle(r, now)
	if wait := debt + r.step - r.full; wait > 0 {
		out.Reset, out.RetryAfter = time.Duration(wait), time.Duration(wait)
		return
	}
	out.OK = true
	out.Reset = time.Duration(debt + r.step)
	out.Remaining = uint64((r.full - debt - r.step) / r.step)
}

// take uses up one token.
func (v *level) take(r rate, now int64) {
	v.filled = now + v.settle(r, now) + r.step
}

// give puts back what take took.
func (v *level) give() { v.filled -= v.step }
