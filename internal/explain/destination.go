package explain

import (
	"errors"
	"net"
	"strconv"

	"github.com/ambit-mesh/ambit/internal/authz"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/wds"
	"github.com/ambit-mesh/ambit/waypoint/route"
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
		b.Endpoints = append(b.Endpoints, x.endpoint(b.Service, e, peer))
	}
}

func (x *explanation) endpoint(service string, e wds.Endpoint, peer identity.ID) Endpoint {
	w, at := e.Workload, e.Address(true)
	out := Endpoint{Workload: w.Namespace + "/" + w.Name, Address: at.String(), Node: w.Node, Captured: w.HBONE}
	if svc := x.store.Service(service); svc != nil && svc.External {
		out.Outside = true
		if !at.IsValid() {
			out.Address = net.JoinHostPort(w.Hostname, strconv.Itoa(int(e.Port)))
		}
		return out
	}
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

// originate says which TLS the waypoint speaks to a backend: of requests, and to hosts
// outside of all that clients do not encrypt themselves, which it looks at on a port of
// TLS alone.
func (x *explanation) originate(b *Backend, f *route.Frontend) {
	svc := x.store.Service(b.Service)
	asked := requests(f, x.port)
	if x.udp || !asked && (svc == nil || !svc.External) {
		return
	}
	for _, t := range x.backends[b.Service].GetTls() {
		if t.GetPort() != uint32(b.Port) {
			continue
		}
		by := "BackendTLSPolicy " + t.GetPolicy()
		b.TLS = "over TLS, server name " + t.GetHostname() + " (" + by + ")"
		switch invalid := t.GetInvalid(); {
		case invalid == "" && !asked && ofTLS(f, x.port):
			b.TLS = "as the client encrypts it, and otherwise " + b.TLS
		case invalid == "":
		case asked || !ofTLS(f, x.port):
			b.TLS, b.Refusal, b.Endpoints = "", "nothing is sent: "+by+": "+invalid, nil
			return
		default:
			b.TLS = "nothing is sent that the client does not encrypt itself: " + by + ": " + invalid
		}
		for i := range b.Endpoints {
			b.Endpoints[i].TLS = true
		}
	}
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
