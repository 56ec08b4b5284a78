package wds

import (
	"fmt"
	"net/netip"
	"unique"

	"google.golang.org/protobuf/proto"

	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/internal/identity"
)

// Workload is one program that can be connected to.
type Workload struct {
	UID, Name, Namespace   string
	ServiceAccount         string
	TrustDomain            string
	Node, Network, Cluster string
	CanonicalName          string
	CanonicalRevision      string
	Type, Owner            string // for example deployment and its name
	Hostname               string
	Region, Zone, Subzone  string
	Addresses              []netip.Addr
	// HBONE says that the workload is reached through its tunnel port only.
	HBONE bool
	// Native says that the workload terminates HBONE itself.
	Native      bool
	HostNetwork bool
	// UDP says that the tunnel port takes CONNECT-UDP, HTTP3 that it takes HTTP/3 as
	// well, HTTP3UDP that it does for CONNECT-UDP at least, Transport which of the two
	// its owner prefers.
	UDP, HTTP3, HTTP3UDP bool
	Transport            workloadpb.Transport_Preference
	Healthy              bool
	Waypoint             *Gateway
	// Policies that select the workload, as <namespace>/<name>.
	Policies []string
	Services []Membership
	// Capacity is the weight in load balancing.
	Capacity uint32
	// Label is its name below the headless services that Subdomain is one of.
	Label, Subdomain string
	// RegistryOnly says that it may connect to what the mesh knows and to nothing
	// else.
	RegistryOnly bool
	// Terminating workloads take no new connections.
	Terminating bool

	// load of the workload as this proxy sees it. Shared with the versions of the
	// workload before and after.
	load *load
	// places of the workload among the endpoints of each of Services. Guarded by the
	// lock of the store.
	places []int
	// former is nil while no waypoint was ever unbound.
	former *former
}

// Membership is a workload's place in a service.
type Membership struct {
	Service string // <namespace>/<hostname>
	Ports   []Port
	UDP     []Port
}

// Port maps a port of a service to one of the workload; Target is 0 where each
// workload has its own.
type Port struct {
	Service, Target uint16
}

// Gateway is a proxy that traffic has to take: either Service or Address is set.
type Gateway struct {
	Service string // <namespace>/<hostname>
	Address netip.Addr
	Port    uint16
	// FailOpen lets traffic go around it while none of its endpoints is ready.
	FailOpen bool
	// Refusal is why it cannot be used at all; "" if it can.
	Refusal string
}

// String names the gateway for people.
func (g *Gateway) String() string {
	if g.Service != "" {
		return g.Service
	}
	return g.Address.String()
}

// served says whether it is its node's proxy that ends its tunnels.
func (w *Workload) served() bool { return w.HBONE && !w.Native }

// Identity is who the workload is.
func (w *Workload) Identity() identity.ID {
	return identity.ID{TrustDomain: w.TrustDomain, Namespace: w.Namespace, ServiceAccount: w.ServiceAccount}
}

// intern shares the memory of strings that many workloads have.
func intern(s string) string {
	if s == "" {
		return ""
	}
	return unique.Make(s).Value()
}

// addrs reads addresses of 4 or 16 bytes.
func addrs(list [][]byte) ([]netip.Addr, error) {
	out := make([]netip.Addr, 0, len(list))
	for _, b := range list {
		a, ok := netip.AddrFromSlice(b)
		if !ok {
			return nil, fmt.Errorf("address of %d bytes: want 4 or 16", len(b))
		}
		out = append(out, a.Unmap())
	}
	return out, nil
}

func port16(p uint32, what string) (uint16, error) {
	if p > 65535 {
		return 0, fmt.Errorf("%s %d: out of range", what, p)
	}
	return uint16(p), nil
}

func ports(list []*workloadpb.Port) ([]Port, error) {
	out := make([]Port, 0, len(list))
	for _, p := range list {
		s, err := port16(p.GetServicePort(), "service port")
		if err != nil {
			return nil, err
		}
		t, err := port16(p.GetTargetPort(), "target port")
		if err != nil {
			return nil, err
		}
		out = append(out, Port{Service: s, Target: t})
	}
	return out, nil
}

// gateway reads a waypoint and what extensions say about it. One that cannot be
// read is an error: without it nobody knows what the waypoint is.
func gateway(g *workloadpb.GatewayAddress, extensions []*workloadpb.Extension) (*Gateway, error) {
	if g == nil {
		return nil, nil
	}
	options, err := waypointOptions(extensions)
	if err != nil {
		return nil, err
	}
	out, err := gatewayAddress(g)
	if err != nil {
		return nil, err
	}
	out.FailOpen, out.Refusal = options.GetFailOpen(), options.GetRefusal()
	return out, nil
}

// announced reads a waypoint that is going to be bound where none is; nil for none.
func announced(extensions []*workloadpb.Extension) (*Gateway, error) {
	options, err := waypointOptions(extensions)
	if err != nil || options.GetAnnounced() == nil {
		return nil, err
	}
	return gatewayAddress(options.GetAnnounced())
}

func waypointOptions(extensions []*workloadpb.Extension) (*workloadpb.WaypointOptions, error) {
	options := &workloadpb.WaypointOptions{}
	return options, unpack(extensions, workloadpb.WaypointExtension, options)
}

// unpack reads the extension of a name; one that is not there leaves into as it is.
func unpack(extensions []*workloadpb.Extension, name string, into proto.Message) error {
	for _, e := range extensions {
		if e.GetName() != name {
			continue
		}
		if err := e.GetConfig().UnmarshalTo(into); err != nil {
			return fmt.Errorf("extension %s: %w", name, err)
		}
	}
	return nil
}

func gatewayAddress(g *workloadpb.GatewayAddress) (*Gateway, error) {
	p, err := port16(g.GetHboneMtlsPort(), "waypoint port")
	if err != nil {
		return nil, err
	}
	if p == 0 {
		p = 15008
	}
	switch d := g.GetDestination().(type) {
	case *workloadpb.GatewayAddress_Hostname:
		return &Gateway{Service: d.Hostname.GetNamespace() + "/" + d.Hostname.GetHostname(), Port: p}, nil
	case *workloadpb.GatewayAddress_Address:
		a, ok := netip.AddrFromSlice(d.Address.GetAddress())
		if !ok {
			return nil, fmt.Errorf("waypoint address of %d bytes: want 4 or 16", len(d.Address.GetAddress()))
		}
		return &Gateway{Address: a.Unmap(), Port: p}, nil
	}
	// A waypoint was asked for, and none can be found: that is not the same as none.
	return &Gateway{Port: p}, nil
}

func workloadFrom(pb *workloadpb.Workload) (*Workload, error) {
	if pb.GetUid() == "" {
		return nil, fmt.Errorf("workload %s/%s: no uid", pb.GetNamespace(), pb.GetName())
	}
	fail := func(err error) (*Workload, error) { return nil, fmt.Errorf("workload %s: %w", pb.GetUid(), err) }
	as, err := addrs(pb.GetAddresses())
	if err != nil {
		return fail(err)
	}
	gw, err := gateway(pb.GetWaypoint(), pb.GetExtensions())
	if err != nil {
		return fail(err)
	}
	w := &Workload{
		UID: pb.GetUid(), Name: pb.GetName(), Namespace: intern(pb.GetNamespace()),
		ServiceAccount: intern(or(pb.GetServiceAccount(), "default")), TrustDomain: intern(or(pb.GetTrustDomain(), identity.DefaultTrustDomain)),
		Node: intern(pb.GetNode()), Network: intern(pb.GetNetwork()), Cluster: intern(pb.GetClusterId()),
		CanonicalName: intern(pb.GetCanonicalName()), CanonicalRevision: intern(pb.GetCanonicalRevision()),
		Type: workloadType(pb.GetWorkloadType()), Owner: intern(pb.GetWorkloadName()), Hostname: intern(pb.GetHostname()),
		Region: intern(pb.GetLocality().GetRegion()), Zone: intern(pb.GetLocality().GetZone()), Subzone: intern(pb.GetLocality().GetSubzone()),
		Addresses: as, HBONE: pb.GetTunnelProtocol() == workloadpb.TunnelProtocol_HBONE, Native: pb.GetNativeTunnel(),
		HostNetwork: pb.GetNetworkMode() == workloadpb.NetworkMode_HOST_NETWORK,
		Healthy:     pb.GetStatus() == workloadpb.WorkloadStatus_HEALTHY, Waypoint: gw, Capacity: 1,
	}
	if c := pb.GetCapacity(); c != nil {
		w.Capacity = c.GetValue()
	}
	var options workloadpb.WorkloadOptions
	if err := unpack(pb.GetExtensions(), workloadpb.WorkloadExtension, &options); err != nil {
		return fail(err)
	}
	w.Label, w.Subdomain = options.GetHostname(), intern(options.GetSubdomain())
	w.RegistryOnly = options.GetOutbound() != workloadpb.OutboundMode_OUTBOUND_MODE_ALLOW_ANY
	w.Terminating = options.GetTerminating()
	for _, p := range pb.GetAuthorizationPolicies() {
		w.Policies = append(w.Policies, intern(p))
	}
	for key, list := range pb.GetServices() {
		ps, err := ports(list.GetPorts())
		if err != nil {
			return fail(fmt.Errorf("service %s: %w", key, err))
		}
		w.Services = append(w.Services, Membership{Service: intern(key), Ports: ps})
	}
	if err := w.transport(pb.GetExtensions()); err != nil {
		return fail(err)
	}
	return w, nil
}

func workloadType(t workloadpb.WorkloadType) string {
	switch t {
	case workloadpb.WorkloadType_CRONJOB:
		return "cronjob"
	case workloadpb.WorkloadType_JOB:
		return "job"
	case workloadpb.WorkloadType_POD:
		return "pod"
	}
	return "deployment"
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
