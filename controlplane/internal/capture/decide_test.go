package capture

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/controlplane/compile"
)

// TestDecide goes through all that a condition can be and all that can be heard.
func TestDecide(t *testing.T) {
	const stays = "stays"
	hold, gone, failed := compile.PodCapture{Captured: true}, compile.PodCapture{}, compile.PodCapture{Message: "no iptables"}
	cond := func(status corev1.ConditionStatus, reason string) corev1.PodCondition {
		return corev1.PodCondition{Type: compile.ConditionCaptured, Status: status, Reason: reason}
	}
	show := func(c corev1.PodCondition, changes bool) string {
		if !changes {
			return stays
		}
		return string(c.Status) + "/" + c.Reason
	}
	for _, tc := range []struct {
		now    corev1.PodCondition
		wanted bool
		r      compile.PodCapture
		want   string
	}{
		{corev1.PodCondition{}, true, hold, "True/Captured"},
		{corev1.PodCondition{}, true, gone, stays},
		{corev1.PodCondition{}, true, failed, "False/CaptureFailed"},
		{corev1.PodCondition{}, false, hold, "True/Releasing"}, // nobody was told, so that it can be let go at once
		{corev1.PodCondition{}, false, gone, stays},
		{cond("False", compile.ReasonReleased), true, hold, "True/Captured"},
		{cond("False", compile.ReasonReleased), false, hold, "True/Releasing"},
		{cond("False", compile.ReasonCaptureFailed), true, hold, "True/Captured"},
		{cond("False", compile.ReasonCaptureFailed), true, gone, "False/Released"},
		{cond("True", compile.ReasonCaptured), true, gone, "True/CaptureLost"},
		{cond("True", compile.ReasonCaptured), true, failed, "True/CaptureLost"},
		// The label has gone, and peers have yet to be told: it stays captured.
		{cond("True", compile.ReasonCaptured), false, gone, "True/CaptureLost"},
		{cond("True", compile.ReasonCaptureLost), true, hold, "True/Captured"},
		{cond("True", compile.ReasonReleasing), false, hold, stays}, // it has yet to let go
		{cond("True", compile.ReasonReleasing), true, hold, stays},
		{cond("True", compile.ReasonReleasing), false, gone, "False/Released"},
		{cond("True", compile.ReasonReleasing), true, gone, "False/Released"},
	} {
		next, changes := reported(tc.now, tc.wanted, tc.r)
		if got := show(next, changes); got != tc.want {
			t.Errorf("%s/%s, wanted %v, report %+v: got %s, want %s", tc.now.Status, tc.now.Reason, tc.wanted, tc.r, got, tc.want)
		}
		if !changes {
			continue
		}
		// The same report again changes nothing, or heals nothing that is not broken.
		if again, changes := reported(next, tc.wanted, tc.r); changes {
			t.Errorf("%s/%s, report %+v: said twice it makes %s", tc.now.Status, tc.now.Reason, tc.r, show(again, changes))
		}
	}
	for now, want := range map[corev1.PodCondition]string{
		{}: stays, cond("False", compile.ReasonReleased): stays, cond("False", compile.ReasonCaptureFailed): stays,
		cond("True", compile.ReasonCaptured): "True/Releasing", cond("True", compile.ReasonReleasing): stays,
		cond("True", compile.ReasonCaptureLost): "False/Released",
	} {
		next, changes := released(now)
		if got := show(next, changes); got != want {
			t.Errorf("peers know, %s/%s: got %s, want %s", now.Status, now.Reason, got, want)
		}
	}
}

func TestOlder(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want bool
	}{{"9", "10", true}, {"10", "9", false}, {"10", "10", false}, {"x", "10", false}, {"9", "", false}} {
		if got := older(tc.a, tc.b); got != tc.want {
			t.Errorf("older(%q, %q) = %v", tc.a, tc.b, got)
		}
	}
}
