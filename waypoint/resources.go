package waypoint

import (
	"fmt"
	"sync"

	waypointpb "github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/wds"
	"github.com/ambit-mesh/ambit/internal/xdsclient"
	"github.com/ambit-mesh/ambit/waypoint/internal/frontend"
	"github.com/ambit-mesh/ambit/waypoint/internal/upstream"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// Resource types of the waypoint configuration.
const (
	typeFrontend = "type.googleapis.com/ambit.waypoint.v1.Frontend"
	typeBackend  = "type.googleapis.com/ambit.waypoint.v1.Backend"
)

// resources puts what the control plane sends where it is used.
type resources struct {
	frontends *frontend.Table
	upstream  *upstream.Set

	mu     sync.RWMutex
	limits map[string][]*route.RateLimit // by service; guarded by mu
	// backends are those of which the last good state is in use; of the handlers.
	backends map[string]bool
}

// subscriptions in the order in which they are asked for: policies and endpoints
// before the services that need them.
func (r *resources) subscriptions(store *wds.Store) []xdsclient.Subscription {
	return append(wds.Subscriptions(store, nil),
		xdsclient.Subscription{TypeURL: typeBackend, Handle: r.onBackends},
		xdsclient.Subscription{TypeURL: typeFrontend, Handle: r.onFrontends},
	)
}

func (r *resources) onFrontends(u xdsclient.Update) error {
	rejected := make(map[string]error)
	updated := make(map[string]*waypointpb.Frontend, len(u.Resources))
	for _, res := range u.Resources {
		f := new(waypointpb.Frontend)
		if err := res.GetResource().UnmarshalTo(f); err != nil {
			rejected[res.GetName()] = err
			continue
		}
		updated[res.GetName()] = f
	}
	for key, err := range r.frontends.Update(updated, u.Removed) {
		rejected[key] = err
	}
	return rejection(rejected)
}

func (r *resources) onBackends(u xdsclient.Update) error {
	rejected := make(map[string]error)
	if r.backends == nil {
		r.backends = make(map[string]bool)
	}
	for _, name := range u.Removed {
		delete(r.backends, name)
		r.upstream.SetPolicy(name, nil)
		r.setLimits(name, nil)
	}
	for _, res := range u.Resources {
		b := new(waypointpb.Backend)
		if err := res.GetResource().UnmarshalTo(b); err != nil {
			rejected[res.GetName()] = err
			continue
		}
		key := b.GetNamespace() + "/" + b.GetHostname()
		if key != res.GetName() {
			rejected[res.GetName()] = fmt.Errorf("backend %s: under the resource name %s", key, res.GetName())
			continue
		}
		limits, problems := route.CompileRateLimits("Service "+key, b.GetRateLimits())
		if len(problems) > 0 {
			rejected[key] = fmt.Errorf("backend %s: %w", key, problems[0])
			if r.backends[key] {
				continue
			}
			// There was none before: what cannot be read refuses requests.
		}
		r.backends[key] = len(problems) == 0
		r.upstream.SetPolicy(key, b)
		r.setLimits(key, limits)
	}
	return rejection(rejected)
}

func (r *resources) setLimits(service string, limits []*route.RateLimit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(limits) == 0 {
		delete(r.limits, service)
		return
	}
	r.limits[service] = limits
}

// limitsOf gives the rate limits of a service.
func (r *resources) limitsOf(service string) []*route.RateLimit {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.limits[service]
}

func rejection(rejected map[string]error) error {
	if len(rejected) == 0 {
		return nil
	}
	return &xdsclient.Rejected{Errors: rejected}
}
