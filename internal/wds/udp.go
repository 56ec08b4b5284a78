package wds

import (
	"errors"
	"fmt"
	"net/netip"

	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
)

// ErrNoUDP is an enrolled workload whose tunnel takes no datagrams: there is no way
// to it that keeps what the mesh promises.
var ErrNoUDP = errors.New("its tunnel takes no UDP")

// transport reads what extensions say about datagrams.
func (w *Workload) transport(list []*workloadpb.Extension) error {
	t := &workloadpb.Transport{}
	if err := unpack(list, workloadpb.TransportExtension, t); err != nil {
		return err
	}
	w.UDP, w.HTTP3, w.HTTP3UDP, w.Transport = t.GetUdp(), t.GetH3(), t.GetH3() || t.GetH3Udp(), t.GetPreference()
	of := &workloadpb.UDPPorts{}
	if err := unpack(list, workloadpb.UDPPortsExtension, of); err != nil {
		return err
	}
	for i := range w.Services {
		m := &w.Services[i]
		var err error
		if m.UDP, err = ports(of.GetServices()[m.Service].GetPorts()); err != nil {
			return fmt.Errorf("UDP ports of service %s: %w", m.Service, err)
		}
	}
	return nil
}

// udp gives the service as datagrams see it. A control plane that does not tell UDP
// ports apart lists them among the others.
func (s *Service) udp() *Service {
	if len(s.UDP) == 0 {
		return s
	}
	of := *s
	of.Ports, of.datagrams = s.UDP, true
	return &of
}

// RouteUDP is Route for datagrams.
func (s *Store) RouteUDP(src *Workload, dst netip.AddrPort, avoid ...*Workload) (Route, error) {
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	s.mu.RLock()
	defer s.mu.RUnlock()
	if w := s.byAddr[dst.Addr()]; w != nil {
		if w.Waypoint != nil && !s.isWaypoint(src, w.Waypoint) {
			if r, err := s.viaWaypointUDP(src, w.Waypoint, nil, dst, avoid); !w.Waypoint.goAround(err) {
				return r, err
			}
		}
		return tunnelUDP(toWorkload(w, nil, dst))
	}
	svc := s.serviceLocked(src.Namespace, dst.Addr())
	if svc == nil {
		if src.RegistryOnly {
			return Route{}, unknownTo(src, dst)
		}
		return Route{Connect: dst, Target: dst}, nil
	}
	return s.toServiceUDP(src, svc, dst, avoid)
}

// toServiceUDP is toService for datagrams.
func (s *Store) toServiceUDP(src *Workload, svc *Service, dst netip.AddrPort, avoid []*Workload) (Route, error) {
	of := svc.udp()
	via := svc.Waypoint != nil && !s.isWaypoint(src, svc.Waypoint)
	asItIs := svc.Passthrough
	if svc.External && !of.HasPort(dst.Port()) {
		// A waypoint decides about its ports, and nobody about others.
		asItIs = asItIs && !src.RegistryOnly && !via
	}
	if !asItIs && !of.HasPort(dst.Port()) {
		return Route{Service: svc}, fmt.Errorf("service %s UDP port %d: %w", svc.Key, dst.Port(), ErrNoPort)
	}
	if via {
		if r, err := s.viaWaypointUDP(src, svc.Waypoint, svc, dst, avoid); !svc.Waypoint.goAround(err) {
			return r, err
		}
	}
	if asItIs {
		return Route{Connect: dst, Target: dst, Service: svc}, nil
	}
	ep, target, err := s.pick(src, of, dst.Port(), dst.Addr().Is4(), avoid)
	if err != nil {
		return Route{Service: svc}, err
	}
	return tunnelUDP(toWorkload(ep, svc, target))
}

// viaWaypointUDP is viaWaypoint for datagrams, which a waypoint must say that it takes.
func (s *Store) viaWaypointUDP(src *Workload, g *Gateway, svc *Service, dst netip.AddrPort, avoid []*Workload) (Route, error) {
	r, err := s.viaWaypoint(src, g, svc, dst, avoid)
	if err == nil && !r.Workload.UDP {
		_, err = tunnelUDP(r)
		return Route{Service: svc}, fmt.Errorf("waypoint %s of %s: %w: %w", g, dst, ErrWaypoint, err)
	}
	return r, err
}

func tunnelUDP(r Route) (Route, error) {
	if r.Tunnel && !r.Workload.UDP {
		return r, fmt.Errorf("workload %s/%s: %w", r.Workload.Namespace, r.Workload.Name, ErrNoUDP)
	}
	return r, nil
}
