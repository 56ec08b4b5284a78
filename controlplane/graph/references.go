package graph

import (
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/ambit-mesh/ambit/apis/gatewayx"
	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
)

// ParentRefs gives the parents of a route as they are written.
func ParentRefs(obj Object) []gatewayv1.ParentReference {
	switch o := obj.(type) {
	case *gatewayv1.HTTPRoute:
		return o.Spec.ParentRefs
	case *gatewayv1.GRPCRoute:
		return o.Spec.ParentRefs
	case *gatewayv1.TLSRoute:
		return o.Spec.ParentRefs
	case *gatewayv1.TCPRoute:
		return o.Spec.ParentRefs
	case *gatewayv1.UDPRoute:
		return o.Spec.ParentRefs
	}
	return nil
}

// ParentService gives the Service that a parent reference of a route of a
// namespace names. The group must be written as "", the default is another one
// (GEP-1324).
func ParentService(namespace string, ref gatewayv1.ParentReference) (name, bool) {
	if ref.Kind == nil || *ref.Kind != "Service" || ref.Group == nil || *ref.Group != "" {
		return name{}, false
	}
	if ref.Namespace != nil {
		namespace = string(*ref.Namespace)
	}
	return name{Namespace: namespace, Name: string(ref.Name)}, true
}

// Parent gives the Service or the ExternalService that a parent reference of a
// route of a namespace names.
func Parent(namespace string, ref gatewayv1.ParentReference) (Key, bool) {
	if svc, ok := ParentService(namespace, ref); ok {
		return ServiceKey(svc), true
	}
	if ref.Kind == nil || *ref.Kind != meshv1alpha1.KindExternalService || ref.Group == nil || *ref.Group != meshv1alpha1.GroupName {
		return Key{}, false
	}
	if ref.Namespace != nil {
		namespace = string(*ref.Namespace)
	}
	return ExternalKey(name{Namespace: namespace, Name: string(ref.Name)}), true
}

// Parents gives the Services and ExternalServices that a route is a part of.
func Parents(obj Object) []Key {
	var out []Key
	for _, ref := range ParentRefs(obj) {
		if k, ok := Parent(obj.GetNamespace(), ref); ok && !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return out
}

// TargetKey names what a policy of a namespace is attached to. A Namespace is that
// of the policy, whatever is written.
func TargetKey(namespace, group, kind, n string) Key {
	if group == "core" {
		group = ""
	}
	if group == "" && kind == string(meshv1alpha1.TargetNamespace) {
		return NamespaceKey(namespace)
	}
	return Key{Group: group, Kind: kind, Namespace: namespace, Name: n}
}

// Targets gives what a policy is attached to.
func Targets(obj Object) []Key {
	var out []Key
	add := func(group, kind, n string) {
		k := TargetKey(obj.GetNamespace(), group, kind, n)
		if !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	switch o := obj.(type) {
	case *gatewayv1.BackendTLSPolicy:
		for _, ref := range o.Spec.TargetRefs {
			add(string(ref.Group), string(ref.Kind), string(ref.Name))
		}
	case *gatewayx.XTelemetryPolicy:
		for _, ref := range o.Spec.TargetRefs {
			add(string(ref.Group), string(ref.Kind), string(ref.Name))
		}
	case *gatewayxv1alpha1.XBackendTrafficPolicy:
		for _, ref := range o.Spec.TargetRefs {
			add(string(ref.Group), string(ref.Kind), string(ref.Name))
		}
	case meshv1alpha1.TrafficPolicy:
		for _, ref := range o.Targets() {
			add(string(ref.Group), string(ref.Kind), string(ref.Name))
		}
	}
	return out
}

// References gives what a route or a policy refers to beside its parents and
// targets: the Services that requests are sent to, and policies that are used as
// filters. References of kinds that the mesh does not know are left out.
func References(obj Object) []Key {
	var out references
	out.namespace = obj.GetNamespace()
	switch o := obj.(type) {
	case *gatewayv1.HTTPRoute:
		for i := range o.Spec.Rules {
			rule := &o.Spec.Rules[i]
			out.httpFilters(rule.Filters)
			for j := range rule.BackendRefs {
				out.backend(&rule.BackendRefs[j].BackendObjectReference)
				out.httpFilters(rule.BackendRefs[j].Filters)
			}
		}
	case *gatewayv1.GRPCRoute:
		for i := range o.Spec.Rules {
			rule := &o.Spec.Rules[i]
			out.grpcFilters(rule.Filters)
			for j := range rule.BackendRefs {
				out.backend(&rule.BackendRefs[j].BackendObjectReference)
				out.grpcFilters(rule.BackendRefs[j].Filters)
			}
		}
	case *gatewayv1.TLSRoute:
		for i := range o.Spec.Rules {
			out.backends(o.Spec.Rules[i].BackendRefs)
		}
	case *gatewayv1.TCPRoute:
		for i := range o.Spec.Rules {
			out.backends(o.Spec.Rules[i].BackendRefs)
		}
	case *gatewayv1.BackendTLSPolicy:
		for _, ref := range o.Spec.Validation.CACertificateRefs {
			if ref.Kind == KindConfigMap && (ref.Group == "" || ref.Group == "core") {
				out.add(Key{Kind: KindConfigMap, Namespace: out.namespace, Name: string(ref.Name)})
			}
		}
	case *gatewayx.XTelemetryPolicy:
		if t := o.Spec.Tracing; t != nil && t.Provider != nil {
			out.backend(&t.Provider.BackendRef)
		}
	case meshv1alpha1.TrafficPolicy:
		for _, ref := range o.Backends() {
			out.backend(&ref)
		}
	}
	return out.keys
}

// references collects the keys that an object of a namespace refers to.
type references struct {
	namespace string
	keys      []Key
}

func (r *references) add(k Key) {
	if !slices.Contains(r.keys, k) {
		r.keys = append(r.keys, k)
	}
}

// BackendService gives the Service that a reference of a namespace names.
func BackendService(namespace string, ref *gatewayv1.BackendObjectReference) (name, bool) {
	if ref.Kind != nil && *ref.Kind != "Service" || ref.Group != nil && *ref.Group != "" && *ref.Group != "core" {
		return name{}, false
	}
	if ref.Namespace != nil {
		namespace = string(*ref.Namespace)
	}
	return name{Namespace: namespace, Name: string(ref.Name)}, true
}

// BackendExternal gives the ExternalService that a reference of a namespace names.
func BackendExternal(namespace string, ref *gatewayv1.BackendObjectReference) (Key, bool) {
	if ref.Kind == nil || *ref.Kind != meshv1alpha1.KindExternalService || ref.Group == nil || *ref.Group != meshv1alpha1.GroupName {
		return Key{}, false
	}
	if ref.Namespace != nil {
		namespace = string(*ref.Namespace)
	}
	return ExternalKey(name{Namespace: namespace, Name: string(ref.Name)}), true
}

func (r *references) backend(ref *gatewayv1.BackendObjectReference) {
	if svc, ok := BackendService(r.namespace, ref); ok {
		r.add(ServiceKey(svc))
	}
}

func (r *references) backends(refs []gatewayv1.BackendRef) {
	for i := range refs {
		r.backend(&refs[i].BackendObjectReference)
	}
}

func (r *references) extension(ref *gatewayv1.LocalObjectReference) {
	if ref != nil && ref.Group == meshv1alpha1.GroupName {
		r.add(Key{Group: meshv1alpha1.GroupName, Kind: string(ref.Kind), Namespace: r.namespace, Name: string(ref.Name)})
	}
}

func (r *references) httpFilters(filters []gatewayv1.HTTPRouteFilter) {
	for i := range filters {
		f := &filters[i]
		if f.RequestMirror != nil {
			r.backend(&f.RequestMirror.BackendRef)
		}
		if f.ExternalAuth != nil {
			r.backend(&f.ExternalAuth.BackendRef)
		}
		r.extension(f.ExtensionRef)
	}
}

func (r *references) grpcFilters(filters []gatewayv1.GRPCRouteFilter) {
	for i := range filters {
		f := &filters[i]
		if f.RequestMirror != nil {
			r.backend(&f.RequestMirror.BackendRef)
		}
		r.extension(f.ExtensionRef)
	}
}
