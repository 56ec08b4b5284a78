package wds

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/internal/identity"
)

// Service is a name with virtual addresses.
type Service struct {
	Key             string // <namespace>/<hostname>
	Name, Namespace string
	Hostname        string
	VIPs            []netip.Addr
	Ports           []Port
	UDP             []Port // where the control plane tells them apart
	datagrams       bool   // Ports are those of UDP
	Waypoint        *Gateway
	bound           time.Time // when this node heard of Waypoint
	// Announced is a waypoint that is going to be bound: it is believed, and not taken.
	Announced *Gateway
	former    *former
	Canonical bool
	// AllowUnhealthy sends traffic to endpoints that are not ready, too.
	AllowUnhealthy bool
	// Passthrough connects to the address that was asked for.
	Passthrough bool
	// Strict uses only endpoints that match every one of Scopes; otherwise those
	// that match the most come first.
	Strict bool
	Scopes []workloadpb.LoadBalancing_Scope
	// Identities are accepted for endpoints besides their own.
	Identities []identity.ID
	// External says that the endpoints are outside of the mesh.
	External   bool
	originates []uint16 // ports outside to which the waypoint speaks TLS
	// Blocks of addresses that clients connect to.
	Blocks []netip.Prefix
	// Named are the ports that have a name, of all protocols.
	Named []NamedPort
	// V4 and V6 say which families it serves; both where nothing is said.
	V4, V6 bool
}

// NamedPort is a port as SRV records name it.
type NamedPort struct {
	Name, Protocol string // protocol is tcp, udp or sctp
	// Target is 0 where each endpoint has its own.
	Port, Target uint16
}

// bindingTime is for how long a waypoint is awaited that a service was bound to only now:
// what is known of its pods may come a moment later than the binding.
const bindingTime = 2 * time.Second

// AwaitWaypoint says for how long the waypoint of a service may still become known; 0 for
// one that was bound to it a while ago, and is missing now.
func (s *Service) AwaitWaypoint() time.Duration {
	if s.Waypoint == nil || s.Waypoint.Refusal != "" {
		return 0
	}
	return max(0, bindingTime-time.Since(s.bound))
}

// boundSince notes since when a service has its waypoint; old is what it was, nil for
// a new one.
func (s *Service) boundSince(old *Service) {
	if old != nil && old.Waypoint.same(s.Waypoint) {
		s.bound = old.bound
		return
	}
	s.bound = time.Now()
}

// OriginatesTLS says whether the waypoint of a host outside speaks TLS to a port of it.
func (s *Service) OriginatesTLS(port uint16) bool {
	return s.External && slices.Contains(s.originates, port)
}

// Wildcard reports whether the service stands for all names below a domain.
func (s *Service) Wildcard() bool { return strings.HasPrefix(s.Hostname, "*.") }

// options reads what Ambit's control plane says beside the published format.
func (s *Service) options(extensions []*workloadpb.Extension) error {
	var o workloadpb.ServiceOptions
	if err := unpack(extensions, workloadpb.ServiceExtension, &o); err != nil {
		return err
	}
	s.External = o.GetExternal()
	for _, p := range o.GetPorts() {
		n, err := port16(p.GetPort(), "port")
		if err != nil {
			return err
		}
		target, err := port16(p.GetTarget(), "target port")
		if err != nil {
			return err
		}
		if p.GetName() != "" {
			s.Named = append(s.Named, NamedPort{Name: intern(p.GetName()), Protocol: intern(p.GetProtocol()), Port: n, Target: target})
		}
		if p.GetOriginatesTls() {
			s.originates = append(s.originates, n)
		}
		if p.GetProtocol() == "udp" {
			s.UDP = append(s.UDP, Port{Service: n, Target: target})
		}
	}
	return s.formerUDP(extensions)
}

// formerUDP reads the UDP ports from where control planes used to say them.
func (s *Service) formerUDP(extensions []*workloadpb.Extension) error {
	if len(s.UDP) > 0 {
		return nil
	}
	of := &workloadpb.UDPPorts{}
	if err := unpack(extensions, workloadpb.UDPPortsExtension, of); err != nil {
		return err
	}
	var err error
	s.UDP, err = ports(of.GetPorts()) //nolint:staticcheck // deprecated, and read for their sake
	return err
}

func serviceFrom(pb *workloadpb.Service) (*Service, error) {
	key := pb.GetNamespace() + "/" + pb.GetHostname()
	fail := func(err error) (*Service, error) { return nil, fmt.Errorf("service %s: %w", key, err) }
	gw, err := gateway(pb.GetWaypoint(), pb.GetExtensions())
	if err != nil {
		return fail(err)
	}
	soon, err := announced(pb.GetExtensions())
	if err != nil {
		return fail(err)
	}
	ps, err := ports(pb.GetPorts())
	if err != nil {
		return fail(err)
	}
	lb := pb.GetLoadBalancing()
	s := &Service{
		Key: intern(key), Name: intern(pb.GetName()), Namespace: intern(pb.GetNamespace()), Hostname: intern(pb.GetHostname()),
		Ports: ps, Waypoint: gw, Announced: soon, Canonical: pb.GetCanonical(),
		AllowUnhealthy: lb.GetHealthPolicy() == workloadpb.LoadBalancing_ALLOW_ALL,
		Passthrough:    lb.GetMode() == workloadpb.LoadBalancing_PASSTHROUGH,
		Strict:         lb.GetMode() == workloadpb.LoadBalancing_STRICT,
	}
	if m := lb.GetMode(); m == workloadpb.LoadBalancing_STRICT || m == workloadpb.LoadBalancing_FAILOVER {
		s.Scopes = slices.Clone(lb.GetRoutingPreference())
	}
	if err := s.options(pb.GetExtensions()); err != nil {
		return fail(err)
	}
	families := pb.GetIpFamilies()
	s.V4, s.V6 = families != workloadpb.IPFamilies_IPV6_ONLY, families != workloadpb.IPFamilies_IPV4_ONLY
	for _, a := range pb.GetAddresses() {
		if a.GetNetwork() != "" {
			continue // other networks are not addressed by VIP here
		}
		ip, ok := netip.AddrFromSlice(a.GetAddress())
		if !ok {
			return fail(fmt.Errorf("address of %d bytes: want 4 or 16", len(a.GetAddress())))
		}
		if a.Length == nil || int(a.GetLength()) == 8*len(a.GetAddress()) {
			s.VIPs = append(s.VIPs, ip.Unmap())
			continue
		}
		block, err := ip.Prefix(int(a.GetLength()))
		if err != nil {
			return fail(fmt.Errorf("block of addresses: %w", err))
		}
		s.Blocks = append(s.Blocks, block)
	}
	for _, san := range pb.GetSubjectAltNames() {
		id, err := identity.Parse(san)
		if err != nil {
			return fail(fmt.Errorf("subject alt name: %w", err))
		}
		s.Identities = append(s.Identities, id)
	}
	return s, nil
}

// Target gives the port of a workload for a port of the service.
func (s *Service) Target(m *Membership, port uint16) (uint16, bool) {
	own := m.Ports
	if s.datagrams {
		own = m.UDP
	}
	for _, p := range own {
		if p.Service == port && p.Target != 0 {
			return p.Target, true
		}
	}
	for _, p := range s.Ports {
		if p.Service == port && p.Target != 0 {
			return p.Target, true
		}
	}
	return 0, false
}

// HasPort reports whether the service has the port.
func (s *Service) HasPort(port uint16) bool {
	return slices.ContainsFunc(s.Ports, func(p Port) bool { return p.Service == port })
}
