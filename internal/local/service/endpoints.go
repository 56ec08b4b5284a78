package service

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Port is a service port as one endpoint serves it.
type Port struct {
	Name     string
	Protocol corev1.Protocol
	Port     int32 // of the service
	Target   int32 // of the endpoint
}

// Endpoint is one pod, or one address that somebody listed, behind a service.
type Endpoint struct {
	Addrs []netip.Addr
	Ports []Port
	// Hostname is its name below the service's, if it has one.
	Hostname string
	Node     string
	// Ready endpoints get traffic.
	Ready       bool
	Serving     bool
	Terminating bool
	// Pod is nil for listed addresses.
	Pod *corev1.Pod
}

// Endpoints gives what is behind a service: the pods that it selects or, for a
// service without a selector, what the slices list for it.
func Endpoints(svc *corev1.Service, pods []*corev1.Pod, slicesOf []*discoveryv1.EndpointSlice) []Endpoint {
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	var all []Endpoint
	if len(svc.Spec.Selector) == 0 {
		for _, s := range slicesOf {
			if s.Namespace == svc.Namespace && s.Labels[discoveryv1.LabelServiceName] == svc.Name {
				all = append(all, listed(svc, s)...)
			}
		}
		return all
	}
	selector := labels.SelectorFromSet(svc.Spec.Selector)
	for _, p := range pods {
		if p.Namespace == svc.Namespace && selector.Matches(labels.Set(p.Labels)) {
			if e, ok := ofPod(svc, p); ok {
				all = append(all, e)
			}
		}
	}
	slices.SortFunc(all, func(a, b Endpoint) int { return cmp.Compare(a.Pod.Name, b.Pod.Name) })
	return all
}

func ofPod(svc *corev1.Service, p *corev1.Pod) (Endpoint, bool) {
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed || len(p.Status.PodIPs) == 0 {
		return Endpoint{}, false
	}
	serving := false
	for _, c := range p.Status.Conditions {
		serving = serving || c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	}
	e := Endpoint{Node: p.Spec.NodeName, Serving: serving, Terminating: p.DeletionTimestamp != nil, Pod: p}
	e.Ready = svc.Spec.PublishNotReadyAddresses || serving && !e.Terminating
	if p.Spec.Subdomain == svc.Name {
		e.Hostname = p.Spec.Hostname
	}
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			e.Addrs = append(e.Addrs, a)
		}
	}
	for _, sp := range svc.Spec.Ports {
		if target, ok := targetPort(sp, p); ok {
			e.Ports = append(e.Ports, Port{Name: sp.Name, Protocol: sp.Protocol, Port: sp.Port, Target: target})
		}
	}
	return e, true
}

// targetPort resolves a named port against the pod's containers.
func targetPort(sp corev1.ServicePort, p *corev1.Pod) (int32, bool) {
	if sp.TargetPort.Type == intstr.Int {
		return sp.TargetPort.IntVal, true
	}
	for _, list := range [][]corev1.Container{p.Spec.Containers, p.Spec.InitContainers} {
		for _, c := range list {
			for _, cp := range c.Ports {
				if cp.Name == sp.TargetPort.StrVal && cp.Protocol == sp.Protocol {
					return cp.ContainerPort, true
				}
			}
		}
	}
	return 0, false
}

func listed(svc *corev1.Service, s *discoveryv1.EndpointSlice) []Endpoint {
	var ports []Port
	for _, sp := range svc.Spec.Ports {
		for _, p := range s.Ports {
			if p.Port != nil && deref(p.Name) == sp.Name && deref(p.Protocol) == sp.Protocol {
				ports = append(ports, Port{Name: sp.Name, Protocol: sp.Protocol, Port: sp.Port, Target: *p.Port})
			}
		}
	}
	var all []Endpoint
	for _, ep := range s.Endpoints {
		ready := ep.Conditions.Ready == nil || *ep.Conditions.Ready
		e := Endpoint{Ports: ports, Hostname: deref(ep.Hostname), Node: deref(ep.NodeName), Ready: ready, Serving: ready}
		for _, raw := range ep.Addresses {
			if a, err := netip.ParseAddr(raw); err == nil {
				e.Addrs = append(e.Addrs, a)
			}
		}
		all = append(all, e)
	}
	return all
}

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// Slices gives the EndpointSlices of a service with a selector: one for each
// family and set of target ports.
func Slices(svc *corev1.Service, endpoints []Endpoint) []*discoveryv1.EndpointSlice {
	if len(svc.Spec.Selector) == 0 || svc.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	var all []*discoveryv1.EndpointSlice
	for _, family := range svc.Spec.IPFamilies {
		group := make(map[string]*discoveryv1.EndpointSlice)
		for _, e := range endpoints {
			i := slices.IndexFunc(e.Addrs, func(a netip.Addr) bool { return familyOf(a) == family })
			if i < 0 {
				continue
			}
			id := fmt.Sprint(e.Ports)
			s := group[id]
			if s == nil {
				s = newSlice(svc, family, len(group), e.Ports)
				group[id] = s
				all = append(all, s)
			}
			s.Endpoints = append(s.Endpoints, sliceEndpoint(e, e.Addrs[i]))
		}
	}
	return all
}

func newSlice(svc *corev1.Service, family corev1.IPFamily, n int, ports []Port) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("%s-%s-%d", svc.Name, map[corev1.IPFamily]string{corev1.IPv4Protocol: "v4", corev1.IPv6Protocol: "v6"}[family], n), Namespace: svc.Namespace,
			Labels: map[string]string{discoveryv1.LabelServiceName: svc.Name, discoveryv1.LabelManagedBy: "ambit-local"},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "v1", Kind: "Service", Name: svc.Name, UID: svc.UID, Controller: new(true),
			}},
		},
		AddressType: discoveryv1.AddressType(family),
	}
	if svc.Spec.ClusterIP == corev1.ClusterIPNone {
		s.Labels[corev1.IsHeadlessService] = ""
	}
	for _, p := range ports {
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: new(p.Name), Protocol: new(p.Protocol), Port: new(p.Target)})
	}
	return s
}

func sliceEndpoint(e Endpoint, a netip.Addr) discoveryv1.Endpoint {
	ep := discoveryv1.Endpoint{
		Addresses: []string{a.String()},
		Conditions: discoveryv1.EndpointConditions{
			Ready: new(e.Ready), Serving: new(e.Serving), Terminating: new(e.Terminating),
		},
		NodeName: new(e.Node),
	}
	if e.Hostname != "" {
		ep.Hostname = new(e.Hostname)
	}
	if e.Pod != nil {
		ep.TargetRef = &corev1.ObjectReference{Kind: "Pod", Namespace: e.Pod.Namespace, Name: e.Pod.Name, UID: e.Pod.UID}
	}
	return ep
}
