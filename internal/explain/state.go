package explain

import (
	"encoding/json"
	"fmt"
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
)

// State is what a control plane tells the proxies.
type State struct {
	store     *wds.Store
	frontends map[string]*waypoint.Frontend
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
	s := &State{store: wds.New(), frontends: make(map[string]*waypoint.Frontend)}
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

// service finds the service of a query, and its port.
func (s *State) service(q *Query) (*wds.Service, uint16, error) {
	_, services, _ := s.store.Snapshot()
	var found []*wds.Service
	for _, svc := range services {
		if svc.Name == q.Service && (q.Namespace == "" || svc.Namespace == q.Namespace) {
			found = append(found, svc)
		}
	}
	switch {
	case len(found) == 0:
		return nil, 0, fmt.Errorf("there is no Service %s: %s", q.name(), near(services, q))
	case len(found) > 1:
		return nil, 0, fmt.Errorf("there is more than one Service %s: %s", q.Service, near(services, q))
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
func portOf(svc *wds.Service, q *Query) (uint16, error) {
	if q.Port != 0 {
		return q.Port, nil
	}
	if len(svc.Ports) == 1 {
		return svc.Ports[0].Service, nil
	}
	var ports []string
	for _, p := range svc.Ports {
		if p.Service == 80 {
			return 80, nil
		}
		ports = append(ports, fmt.Sprint(p.Service))
	}
	return 0, fmt.Errorf("service %s/%s has ports %s: choose one with %s:PORT", svc.Namespace, svc.Name, strings.Join(ports, ", "), svc.Name)
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
