package explain

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/apis/security"
	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/internal/authz"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// Types of the resources that are read, as /config_dump has them.
const (
	typeAddress       = "type.googleapis.com/istio.workload.Address"
	typeAuthorization = "type.googleapis.com/istio.security.Authorization"
	typeFrontend      = "type.googleapis.com/ambit.waypoint.v1.Frontend"
	typeBackend       = "type.googleapis.com/ambit.waypoint.v1.Backend"
)

// Protocols of ports.
const (
	protocolTCP = "TCP"
	protocolUDP = "UDP"
)

// State is what a control plane tells the proxies.
type State struct {
	store     *wds.Store
	frontends map[string]*waypoint.Frontend
	backends  map[string]*waypoint.Backend
}

// dumped is a resource in /config_dump.
type dumped struct {
	Name string          `json:"name"`
	Body json.RawMessage `json:"body"`
}

// Read takes a control plane's /config_dump.
func Read(dump []byte) (*State, error) {
	var all map[string][]dumped
	if err := json.Unmarshal(dump, &all); err != nil {
		return nil, fmt.Errorf("config dump: %w", err)
	}
	s := &State{store: wds.New(), frontends: make(map[string]*waypoint.Frontend), backends: make(map[string]*waypoint.Backend)}
	err := s.read(all)
	if err != nil {
		return nil, fmt.Errorf("config dump: %w", err)
	}
	return s, nil
}

func (s *State) read(all map[string][]dumped) (err error) {
	var policies []*authz.Policy
	for _, d := range all[typeAuthorization] {
		body := new(security.Authorization)
		if err := decode(d, body); err != nil {
			return err
		}
		// What cannot be read is enforced in the form that opens nothing.
		if p, _ := authz.Compile(body); p != nil {
			policies = append(policies, p)
		}
	}
	for _, d := range all[typeFrontend] {
		body := new(waypoint.Frontend)
		if err := decode(d, body); err != nil {
			return err
		}
		s.frontends[d.Name] = body
	}
	for _, d := range all[typeBackend] {
		body := new(waypoint.Backend)
		if err := decode(d, body); err != nil {
			return err
		}
		s.backends[d.Name] = body
	}
	s.store.Update(func(c wds.Change) {
		c.Policies(policies, nil)
		for _, d := range all[typeAddress] {
			body := new(workload.Address)
			if err = decode(d, body); err == nil {
				err = c.Put(d.Name, body)
			}
			if err != nil {
				return
			}
		}
	})
	return err
}

func decode(d dumped, body proto.Message) error {
	// A control plane of a later version may say more.
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(d.Body, body); err != nil {
		return fmt.Errorf("%s: %w", d.Name, err)
	}
	return nil
}

// servicePort is a port of a service, and whether it is one of UDP.
type servicePort struct {
	port uint16
	udp  bool
}

// service finds the service of a query, and its port.
func (s *State) service(q *Query) (*wds.Service, servicePort, error) {
	_, services, _ := s.store.Snapshot()
	var found []*wds.Service
	for _, svc := range services {
		if svc.Name == q.Service && (q.Namespace == "" || svc.Namespace == q.Namespace) {
			found = append(found, svc)
		}
	}
	switch {
	case len(found) == 0:
		return nil, servicePort{}, fmt.Errorf("there is no Service %s: %s", q.name(), near(services, q))
	case len(found) > 1:
		return nil, servicePort{}, fmt.Errorf("there is more than one Service %s: %s", q.Service, near(services, q))
	}
	port, err := portOf(found[0], q)
	return found[0], port, err
}

func (q *Query) name() string {
	if q.Namespace == "" {
		return q.Service
	}
	return q.Namespace + "/" + q.Service
}

// portOf gives the port that is asked for or, if there is no doubt, the usual one.
func portOf(svc *wds.Service, q *Query) (servicePort, error) {
	switch q.Protocol {
	case "", protocolTCP, protocolUDP:
	default:
		return servicePort{}, fmt.Errorf("protocol %q: want %s or %s", q.Protocol, protocolTCP, protocolUDP)
	}
	if q.Port != 0 {
		return servicePort{q.Port, q.Protocol == protocolUDP || q.Protocol == "" && !svc.HasPort(q.Port) && hasUDP(svc, q.Port)}, nil
	}
	var all []servicePort
	var names []string
	add := func(ports []wds.Port, udp bool, suffix string) {
		for _, p := range ports {
			all = append(all, servicePort{p.Service, udp})
			names = append(names, fmt.Sprintf("%d%s", p.Service, suffix))
		}
	}
	if q.Protocol != protocolUDP {
		add(svc.Ports, false, "")
	}
	if q.Protocol != protocolTCP {
		add(svc.UDP, true, "/udp")
	}
	if len(all) == 1 {
		return all[0], nil
	}
	if i := slices.Index(all, servicePort{port: 80}); i >= 0 {
		return all[i], nil
	}
	return servicePort{}, fmt.Errorf("service %s/%s has ports %s: choose one with %s:PORT", svc.Namespace, svc.Name, strings.Join(names, ", "), svc.Name)
}

func hasUDP(svc *wds.Service, port uint16) bool {
	return slices.ContainsFunc(svc.UDP, func(p wds.Port) bool { return p.Service == port })
}

// near says which services there are instead.
func near(services []*wds.Service, q *Query) string {
	var here, named []string
	for _, svc := range services {
		if svc.Namespace == q.Namespace {
			here = append(here, svc.Name)
		}
		if svc.Name == q.Service {
			named = append(named, svc.Name+"."+svc.Namespace)
		}
	}
	switch {
	case len(named) > 0:
		return "did you mean " + strings.Join(named, ", ")
	case len(here) > 0:
		return "the namespace has " + strings.Join(here, ", ")
	}
	return "choose a namespace with -n, or see ambit local get services"
}
