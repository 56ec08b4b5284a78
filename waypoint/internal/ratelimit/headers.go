package ratelimit

import (
	"strconv"
	"time"

	"github.com/ambit-mesh/ambit/internal/message"
)

// Headers appends to a response what the limits of its request say: RateLimit-Policy
// with all of them, RateLimit with the tightest, and Retry-After when one refuses
// (draft-ietf-httpapi-ratelimit-headers-10 sections 3 and 4, structured fields of
// RFC 9651). Limits whose numbers are not known are left out. What the service has
// said of its own limits stays: both fields are lists.
//
// With a token bucket, the RateLimit's t is when all of q is there again, and when
// the limit refuses, the same moment as Retry-After.
func Headers(f *message.Fields, verdicts []Verdict) {
	policy := make([]byte, 0, 96)
	for i := range verdicts {
		v := &verdicts[i]
		if v.Window <= 0 {
			continue
		}
		if len(policy) > 0 {
			policy = append(policy, ", "...)
		}
		q, w := quota(v.Limit, v.Window)
		policy = appendString(policy, limitName(v.Policy, v.Rule))
		policy = append(policy, ";q="...)
		policy = strconv.AppendUint(policy, q, 10)
		policy = append(policy, ";w="...)
		policy = strconv.AppendUint(policy, w, 10)
	}
	if len(policy) > 0 {
		f.Add("ratelimit-policy", string(policy))
	}
	v := tightest(verdicts)
	if v == nil {
		return
	}
	if v.Window > 0 {
		item := appendString(make([]byte, 0, 64), limitName(v.Policy, v.Rule))
		item = append(item, ";r="...)
		item = strconv.AppendUint(item, min(v.Remaining, maxInteger), 10)
		item = append(item, ";t="...)
		item = strconv.AppendUint(item, seconds(v.Reset), 10)
		f.Add("ratelimit", string(item))
	}
	if !v.OK {
		f.Add("retry-after", strconv.FormatUint(max(seconds(v.wait()), 1), 10))
	}
}

// tightest gives the verdict that a client should go by: of those that refuse the
// one to wait for the longest, else the one with the least left, else the one that
// takes longest to be whole. Among equals it is the first.
func tightest(verdicts []Verdict) *Verdict {
	var best *Verdict
	for i := range verdicts {
		if v := &verdicts[i]; best == nil || v.tighter(best) {
			best = v
		}
	}
	return best
}

func (v *Verdict) tighter(than *Verdict) bool {
	switch {
	case v.OK != than.OK:
		return !v.OK
	case !v.OK:
		return v.wait() > than.wait()
	case (v.Window > 0) != (than.Window > 0):
		return v.Window > 0
	case v.Remaining != than.Remaining:
		return v.Remaining < than.Remaining
	}
	return v.Reset > than.Reset
}

// wait is how long a client that was refused should wait. Where nobody knows, a
// whole window is long enough.
func (v *Verdict) wait() time.Duration {
	switch {
	case v.RetryAfter > 0:
		return v.RetryAfter
	case v.Reset > 0:
		return v.Reset
	}
	return v.Window
}

// maxInteger is the largest integer of structured fields, RFC 9651 section 3.3.1.
const maxInteger = 999_999_999_999_999

// seconds rounds up: who comes then does not come too early.
func seconds(d time.Duration) uint64 {
	if d <= 0 {
		return 0
	}
	s := uint64(d / time.Second)
	if d%time.Second != 0 {
		s++
	}
	return s
}

// quota gives a rate by whole seconds, which is all that the fields and the
// overrides of global limits can say. It rounds the requests down.
func quota(requests uint64, window time.Duration) (q, w uint64) {
	if window%time.Second == 0 {
		return min(requests, maxInteger), uint64(window / time.Second)
	}
	w = seconds(window)
	q = uint64(float64(requests) * float64(w) * float64(time.Second) / float64(window))
	return min(q, maxInteger), w
}

// appendString writes a string of structured fields (RFC 9651 section 3.3.3),
// which has printable ASCII only.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c > '~':
			b = append(b, '?')
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
