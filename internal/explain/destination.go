package explain

import (
	"errors"

	"github.com/ambit-mesh/ambit/internal/authz"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// Subject names the service of a query as it was found: its namespace and name.
func (s *State) Subject(q Query) (namespace, name string, err error) {
	svc, _, err := s.service(&q)
	if err != nil {
		return "", "", err
	}
	return svc.Namespace, svc.Name, nil
}

// direct follows a connection that takes no waypoint.
func (x *explanation) direct() {
	b := Backend{Service: x.svc.Key, Port: x.port, Percent: 100}
	x.endpoints(&b, x.source)
	x.report.Backends = []Backend{b}
	x.settle()
}

// endpoints asks the policies of the workloads of a backend about a connection
// that peer holds the tunnel of.
func (x *explanation) endpoints(b *Backend, peer identity.ID) {
	find := x.store.Endpoints
	if x.udp {
		find = x.store.EndpointsUDP
	}
	_, list, err := find(nil, b.Service, b.Port)
	switch {
	case errors.Is(err, wds.ErrNoPort):
		b.Refusal = "it has no such port"
	case err != nil:
		b.Refusal = "no endpoint is ready"
	}
	for _, e := range list {
		b.Endpoints = append(b.Endpoints, x.endpoint(e, peer))
	}
}

func (x *explanation) endpoint(e wds.Endpoint, peer identity.ID) Endpoint {
	w, at := e.Workload, e.Address(true)
	out := Endpoint{Workload: w.Namespace + "/" + w.Name, Address: at.String(), Node: w.Node, Captured: w.HBONE}
	if !w.HBONE {
		return out
	}
	out.Identity = w.Identity().String()
	if x.udp && !w.UDP {
		out.Refusal = wds.ErrNoUDP.Error()
		return out
	}
	if x.known {
		d := x.store.Evaluator(w).Decide(authz.Connection{
			Source: x.source, Peer: peer, SourceIP: x.from, DestIP: at.Addr(), DestPort: at.Port(),
		})
		out.Policy = verdict(&d)
	}
	return out
}

// settle sums up what the backends say.
func (x *explanation) settle() {
	good, bad, reason := 0, 0, ""
	note := func(refusal string) {
		if refusal == "" {
			good++
			return
		}
		bad++
		if reason == "" {
			reason = refusal
		}
	}
	for _, b := range x.report.Backends {
		if b.Refusal != "" {
			note(b.Refusal)
		}
		for _, e := range b.Endpoints {
			switch {
			case e.Refusal != "":
				note(e.Refusal)
			case e.Policy != nil && !e.Policy.Allowed:
				note(e.Policy.Reason)
			default:
				note("")
			}
		}
	}
	switch {
	case bad > 0 && good == 0:
		x.refuse(reason)
	case bad > 0:
		x.report.Outcome, x.report.Reason = Depends, reason
	}
}
