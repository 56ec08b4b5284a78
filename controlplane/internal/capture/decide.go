package capture

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/controlplane/compile"
)

// reported gives the condition that a report makes of one; false if it stays.
func reported(now corev1.PodCondition, wanted bool, r compile.PodCapture) (corev1.PodCondition, bool) {
	if r.Captured {
		return held(now, wanted)
	}
	switch {
	case now.Status != corev1.ConditionTrue && r.Message != "":
		return unless(now, corev1.ConditionFalse, compile.ReasonCaptureFailed, r.Message)
	case now.Status != corev1.ConditionTrue && now.Status != "":
		return unless(now, corev1.ConditionFalse, compile.ReasonReleased, "the node agent has let the pod go")
	case now.Status != corev1.ConditionTrue: // never captured, nothing to say
		return now, false
	case now.Reason == compile.ReasonReleasing:
		return unless(now, corev1.ConditionFalse, compile.ReasonReleased, "the node agent has let the pod go")
	}
	message := r.Message
	if message == "" {
		message = "the node agent no longer holds the pod"
	}
	return unless(now, corev1.ConditionTrue, compile.ReasonCaptureLost, message)
}

// held is for a pod whose agent says that it holds it.
func held(now corev1.PodCondition, wanted bool) (corev1.PodCondition, bool) {
	switch {
	case now.Status == corev1.ConditionTrue && now.Reason == compile.ReasonReleasing:
		return now, false // it has yet to let go
	case now.Status != corev1.ConditionTrue && !wanted:
		// The label went while the report was on its way. No peer was told.
		return unless(now, corev1.ConditionTrue, compile.ReasonReleasing, "the pod is not enrolled any more, the node agent is to let it go")
	}
	return unless(now, corev1.ConditionTrue, compile.ReasonCaptured, "the pod's connections take the mesh")
}

// released gives the condition of a pod of which every peer knows that there is no
// tunnel to it; false if it stays.
func released(now corev1.PodCondition) (corev1.PodCondition, bool) {
	switch {
	case now.Status != corev1.ConditionTrue || now.Reason == compile.ReasonReleasing:
		return now, false
	case now.Reason == compile.ReasonCaptureLost:
		// The agent has nothing to let go of, and will not say so again.
		return unless(now, corev1.ConditionFalse, compile.ReasonReleased, "the node agent has let the pod go")
	}
	return unless(now, corev1.ConditionTrue, compile.ReasonReleasing, "no peer uses a tunnel to the pod any more, the node agent is to let it go")
}

func unless(now corev1.PodCondition, status corev1.ConditionStatus, reason, message string) (corev1.PodCondition, bool) {
	next := corev1.PodCondition{Type: compile.ConditionCaptured, Status: status, Reason: reason, Message: message}
	return next, now.Status != status || now.Reason != reason || now.Message != message
}
