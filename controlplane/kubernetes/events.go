package kubernetes

import (
	"context"
	"fmt"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	eventsclient "k8s.io/client-go/kubernetes/typed/events/v1"
	"k8s.io/client-go/tools/events"
)

// recorder records events in Kubernetes while it runs, and drops them otherwise.
// Those that repeat are gathered into one.
type recorder struct {
	sink    eventsclient.EventsV1Interface
	current atomic.Pointer[events.EventRecorderLogger]
}

// Run records until ctx ends.
func (r *recorder) Run(ctx context.Context) error {
	b := events.NewBroadcaster(&events.EventSinkImpl{Interface: r.sink})
	defer b.Shutdown()
	if err := b.StartRecordingToSinkWithContext(ctx); err != nil {
		return fmt.Errorf("events: %w", err)
	}
	now := b.NewRecorder(scheme.Scheme, "ambit-mesh.io/controlplane")
	r.current.Store(&now)
	<-ctx.Done()
	r.current.Store(nil)
	return nil
}

// Eventf records an event about an object.
func (r *recorder) Eventf(regarding, related runtime.Object, eventtype, reason, action, note string, args ...any) {
	if now := r.current.Load(); now != nil {
		(*now).Eventf(regarding, related, eventtype, reason, action, note, args...)
	}
}
