package compile

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// hbonePort is where a waypoint accepts tunnels.
const hbonePort = 15008

func podKey(n types.NamespacedName) graph.Key {
	return graph.Key{Kind: "Pod", Namespace: n.Namespace, Name: n.Name}
}

func externalKey(n types.NamespacedName) graph.Key { return graph.ExternalKey(n) }

// externalFrontKey owns what is compiled of an ExternalService for its waypoint.
func externalFrontKey(n types.NamespacedName) graph.Key {
	return graph.Key{Group: meshv1alpha1.GroupName, Kind: "Frontend", Namespace: n.Namespace, Name: n.Name}
}

func serviceKey(n types.NamespacedName) graph.Key {
	return graph.Key{Kind: "Service", Namespace: n.Namespace, Name: n.Name}
}

func sliceKey(n types.NamespacedName) graph.Key {
	return graph.Key{Group: "discovery.k8s.io", Kind: "EndpointSlice", Namespace: n.Namespace, Name: n.Name}
}

func authzKey(n types.NamespacedName) graph.Key {
	return graph.Key{Group: meshv1alpha1.GroupName, Kind: meshv1alpha1.KindAuthorizationPolicy, Namespace: n.Namespace, Name: n.Name}
}

// peersOwner owns the resources that stand for all PeerAuthentications together.
var peersOwner = graph.Key{Group: meshv1alpha1.GroupName, Kind: meshv1alpha1.KindPeerAuthentication}

func peerKey(namespace, name string) graph.Key {
	return graph.Key{Group: meshv1alpha1.GroupName, Kind: meshv1alpha1.KindPeerAuthentication, Namespace: namespace, Name: name}
}

// workloadName gives the resource name of a pod's workload.
func (c *Compiler) workloadName(n types.NamespacedName) string {
	return c.options.ClusterID + "//Pod/" + n.Namespace + "/" + n.Name
}

func (c *Compiler) endpointName(slice types.NamespacedName, address string) string {
	return c.options.ClusterID + "/discovery.k8s.io/EndpointSlice/" + slice.Namespace + "/" + slice.Name + "/" + address
}

func (c *Compiler) hostname(n types.NamespacedName) string {
	return n.Name + "." + n.Namespace + ".svc." + c.options.ClusterDomain
}

// serviceName gives the resource name of a service, which is also how workloads
// refer to it.
func (c *Compiler) serviceName(n types.NamespacedName) string {
	return n.Namespace + "/" + c.hostname(n)
}

func (c *Compiler) networkAddress(a netip.Addr) *workload.NetworkAddress {
	return &workload.NetworkAddress{Network: c.options.Network, Address: a.AsSlice()}
}

// aliases gives the names by which an address can be asked for.
func (c *Compiler) aliases(addrs []netip.Addr) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, "/"+a.String())
		if c.options.Network != "" {
			out = append(out, c.options.Network+"/"+a.String())
		}
	}
	return out
}

// trustDomain is empty on the wire when it is the default one.
func (c *Compiler) trustDomain() string {
	if c.options.TrustDomain == "cluster.local" {
		return ""
	}
	return c.options.TrustDomain
}
