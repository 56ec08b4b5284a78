package probe

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Loop repeats a probe until ctx ends, or until report says false. It reports
// each time that enough successes or failures came in a row, beginning with the
// first such run.
func (t *Target) Loop(ctx context.Context, p *corev1.Probe, report func(healthy bool, cause error) bool) {
	delay := time.Duration(p.InitialDelaySeconds) * time.Second
	period := 10 * time.Second
	if p.PeriodSeconds > 0 {
		period = time.Duration(p.PeriodSeconds) * time.Second
	}
	needed := map[bool]int32{true: max(1, p.SuccessThreshold), false: 3}
	if p.FailureThreshold > 0 {
		needed[false] = p.FailureThreshold
	}
	var run int32
	last := false
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(period)
		err := t.Check(ctx, p)
		if ctx.Err() != nil {
			return
		}
		if healthy := err == nil; healthy == last {
			run++
		} else {
			last, run = healthy, 1
		}
		if run == needed[last] && !report(last, err) {
			return
		}
	}
}
