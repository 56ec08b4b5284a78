package status

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Recorder tells people by events; events.EventRecorder of client-go is one, and
// gathers those that repeat.
type Recorder interface {
	Eventf(regarding, related runtime.Object, eventtype, reason, action, note string, args ...any)
}

// maxNote is what an event may hold (events.k8s.io/v1, in bytes).
const maxNote = 1024

// tell makes an event of each condition that came to say something else: a
// warning of one that is bad, and a word when that is over.
func (w *Writer) tell(obj runtime.Object, transitions []Transition) {
	if w.cfg.Events == nil {
		return
	}
	said := make(map[string]bool)
	for _, t := range transitions {
		kind := corev1.EventTypeNormal
		if bad(t.Condition) {
			kind = corev1.EventTypeWarning
		}
		note := t.Type + " is " + string(t.Status) + ": " + t.Message
		if t.Of != "" {
			note = t.Of + ": " + note
		}
		// What an object says as a whole need not be repeated for each part of it.
		if said[kind+t.Reason+t.Message] {
			continue
		}
		said[kind+t.Reason+t.Message] = true
		if len(note) > maxNote {
			note = strings.ToValidUTF8(note[:maxNote-3], "") + "..."
		}
		w.cfg.Events.Eventf(obj, nil, kind, t.Reason, "Status", "%s", note)
	}
}

// bad says whether somebody has to do something, or wait.
func bad(c metav1.Condition) bool {
	if c.Type == string(gatewayv1.RouteConditionPartiallyInvalid) {
		return c.Status == metav1.ConditionTrue
	}
	return c.Status == metav1.ConditionFalse
}
