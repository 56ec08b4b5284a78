package graph

import (
	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
)

func (g *Graph) setAuthz(n name, item *Item[*meshv1alpha1.AuthorizationPolicy], d *Dirty) {
	old, had, changed := swap(g.authz, n, item)
	if !changed {
		return
	}
	d.AuthorizationPolicies[n] = struct{}{}
	if had {
		eachService(old.Object, func(svc name) { g.authzByService.remove(svc, n) })
	}
	if item != nil {
		eachService(item.Object, func(svc name) { g.authzByService.add(svc, n) })
	}
}

// eachService calls yield for each service that a policy names.
func eachService(p *meshv1alpha1.AuthorizationPolicy, yield func(name)) {
	for _, ref := range p.Spec.TargetRefs {
		if ref.Kind == meshv1alpha1.TargetService && ref.Name != nil {
			yield(name{Namespace: p.Namespace, Name: string(*ref.Name)})
		}
	}
}

func (g *Graph) setPeerAuthn(n name, item *Item[*meshv1alpha1.PeerAuthentication], d *Dirty) {
	if _, _, changed := swap(g.peerAuthn, n, item); changed {
		d.PeerAuthentications[n] = struct{}{}
	}
}
