package wds

import (
	"fmt"

	securitypb "github.com/ambit-mesh/ambit/apis/security"
	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/internal/authz"
	"github.com/ambit-mesh/ambit/internal/xdsclient"
)

// Resource types of the Workload Discovery Service.
const (
	TypeAddress       = "type.googleapis.com/istio.workload.Address"
	TypeAuthorization = "type.googleapis.com/istio.security.Authorization"
)

// resources puts what the control plane sends into the store.
type resources struct {
	store   *Store
	changed func()
}

// Subscriptions are those by which a store is kept. changed is told of workloads
// and services that came or went; it may be nil. Policies come first: a workload
// must not be known before what protects it.
func Subscriptions(s *Store, changed func()) []xdsclient.Subscription {
	if changed == nil {
		changed = func() {}
	}
	r := &resources{store: s, changed: changed}
	return []xdsclient.Subscription{
		{TypeURL: TypeAuthorization, Handle: r.authorizations},
		{TypeURL: TypeAddress, Handle: r.addresses},
	}
}

func (r *resources) addresses(u xdsclient.Update) error {
	rejected := make(map[string]error)
	parsed := make([]*workloadpb.Address, len(u.Resources))
	for i, res := range u.Resources {
		a := new(workloadpb.Address)
		if err := res.GetResource().UnmarshalTo(a); err != nil {
			rejected[res.GetName()] = err
			continue
		}
		parsed[i] = a
	}
	r.store.Update(func(c Change) {
		for _, name := range u.Removed {
			c.Remove(name)
		}
		for i, a := range parsed {
			if a == nil {
				continue
			}
			if err := c.Put(u.Resources[i].GetName(), a); err != nil {
				rejected[u.Resources[i].GetName()] = err
			}
		}
	})
	r.changed()
	return rejection(rejected)
}

func (r *resources) authorizations(u xdsclient.Update) error {
	rejected := make(map[string]error)
	var policies []*authz.Policy
	for _, res := range u.Resources {
		pb := new(securitypb.Authorization)
		if err := res.GetResource().UnmarshalTo(pb); err != nil {
			rejected[res.GetName()] = err
			continue
		}
		if name := pb.GetNamespace() + "/" + pb.GetName(); name != res.GetName() {
			rejected[res.GetName()] = fmt.Errorf("policy %s: under the resource name %s", name, res.GetName())
			continue
		}
		p, err := authz.Compile(pb)
		if err != nil {
			// It is enforced all the same, in the form that opens nothing.
			rejected[res.GetName()] = err
		}
		if p != nil {
			policies = append(policies, p)
		}
	}
	var removed []authz.Key
	for _, name := range u.Removed {
		if k, ok := authz.ParseKey(name); ok {
			removed = append(removed, k)
		}
	}
	r.store.Update(func(c Change) { c.Policies(policies, removed) })
	return rejection(rejected)
}

func rejection(rejected map[string]error) error {
	if len(rejected) == 0 {
		return nil
	}
	return &xdsclient.Rejected{Errors: rejected}
}
