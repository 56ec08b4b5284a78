package graph

import (
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
)

func (g *Graph) setAuthz(n name, item *Item[*meshv1alpha1.AuthorizationPolicy], d *Dirty) {
	old, had, changed := swap(g.authz, n, item)
	if !changed {
		return
	}
	d.AuthorizationPolicies[n] = struct{}{}
	if had {
		eachTarget(old.Object, meshv1alpha1.TargetService, func(svc name) { g.authzByService.remove(svc, n) })
		eachTarget(old.Object, meshv1alpha1.TargetExternalService, func(es name) { g.authzByExternal.remove(es, n) })
	}
	if item != nil {
		eachTarget(item.Object, meshv1alpha1.TargetService, func(svc name) { g.authzByService.add(svc, n) })
		eachTarget(item.Object, meshv1alpha1.TargetExternalService, func(es name) { g.authzByExternal.add(es, n) })
	}
}

// eachTarget calls yield for each object of a kind that a policy names.
func eachTarget(p *meshv1alpha1.AuthorizationPolicy, kind gatewayv1.Kind, yield func(name)) {
	for _, ref := range p.Spec.TargetRefs {
		if ref.Kind == kind && ref.Name != nil {
			yield(name{Namespace: p.Namespace, Name: string(*ref.Name)})
		}
	}
}

func (g *Graph) setPeerAuthn(n name, item *Item[*meshv1alpha1.PeerAuthentication], d *Dirty) {
	if _, _, changed := swap(g.peerAuthn, n, item); changed {
		d.PeerAuthentications[n] = struct{}{}
	}
}
