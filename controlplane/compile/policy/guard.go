package policy

import (
	"fmt"

	"google.golang.org/protobuf/types/known/anypb"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/security"
)

// Guarded is a Service whose waypoint must not be gone around.
type Guarded struct {
	Service types.NamespacedName
	// Waypoint of the Service; zero if it uses none, and then nothing comes in.
	Waypoint types.NamespacedName
	// Ports that the workloads listen on for the Service.
	Ports []uint32
	// Policies that the waypoint enforces. Without any it is the Service itself
	// that requires its waypoint.
	Policies []types.NamespacedName
	// Allows says that one of them is an ALLOW policy: whom the waypoint lets in,
	// the workloads do.
	Allows bool
}

// guardNames are the names of what Guards gives, whose underscores no object has.
func guardNames(service string) (only, decides string) {
	return "ambit_only_through_waypoint_" + service, "ambit_waypoint_decides_" + service
}

// Guards gives the Authorizations that the workloads behind a Service list: a
// DENY of what did not come through the waypoint and, if the waypoint has an ALLOW
// policy to enforce, an ALLOW of what did, by which nothing else is refused. Both
// look at who holds the tunnel. A peer that does not know the difference sees the
// waypoint as the client and comes to the same.
func Guards(g Guarded, opts Options) []*security.Authorization {
	opts = opts.withDefaults()
	if len(g.Ports) == 0 {
		return nil
	}
	only, decides := guardNames(g.Service.Name)
	var waypoint []*security.StringMatch
	if g.Waypoint.Name != "" {
		waypoint = []*security.StringMatch{exact(opts.TrustDomain + "/ns/" + g.Waypoint.Namespace + "/sa/" + g.Waypoint.Name)}
	}
	deny := g.draft(only, &security.Match{NotPrincipals: waypoint, DestinationPorts: g.Ports})
	deny.auth.Action = security.Action_DENY
	deny.origin.Reason = g.reason()
	out := []*security.Authorization{deny.finish()}
	if g.Allows && waypoint != nil {
		allow := g.draft(decides, &security.Match{Principals: waypoint, DestinationPorts: g.Ports})
		allow.origin.Optional = true
		out = append(out, allow.finish())
	}
	return out
}

func (g *Guarded) draft(name string, m *security.Match) *draft {
	// As for an Origin, packing cannot fail.
	if config, err := anypb.New(&security.TunnelPeer{}); err == nil {
		m.Extensions = []*security.Extension{{Name: security.TunnelPeerExtension, Config: config}}
	}
	origin := &security.Origin{Kind: v1alpha1.KindAuthorizationPolicy}
	switch len(g.Policies) {
	case 0:
		origin.Kind, origin.Namespace, origin.Name = string(v1alpha1.TargetService), g.Service.Namespace, g.Service.Name
	case 1:
		origin.Namespace, origin.Name = g.Policies[0].Namespace, g.Policies[0].Name
	}
	return &draft{
		auth: &security.Authorization{
			Name: name, Namespace: g.Service.Namespace, Scope: security.Scope_WORKLOAD_SELECTOR,
			Rules: []*security.Rule{{Clauses: []*security.Clause{{Matches: []*security.Match{m}}}}},
		},
		origin: origin,
	}
}

func (g *Guarded) reason() string {
	switch {
	case g.Waypoint.Name == "":
		return fmt.Sprintf("Service %s requires a waypoint and uses none", g.Service)
	case len(g.Policies) == 0:
		return fmt.Sprintf("it did not come through waypoint %s, which Service %s requires", g.Waypoint, g.Service)
	case len(g.Policies) == 1:
		return fmt.Sprintf("it did not come through waypoint %s, which enforces this policy for Service %s", g.Waypoint, g.Service)
	}
	return fmt.Sprintf("it did not come through waypoint %s, which enforces %s and %d more for Service %s", g.Waypoint, g.Policies[0], len(g.Policies)-1, g.Service)
}
