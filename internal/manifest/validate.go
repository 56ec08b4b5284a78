package manifest

import (
	"net/netip"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validate checks what the mesh relies on and an API server would refuse.
func validate(obj Resource) field.ErrorList {
	errs := validateMeta(obj)
	spec := field.NewPath("spec")
	switch o := obj.(type) {
	case *corev1.Service:
		errs = append(errs, validateService(&o.Spec, spec)...)
	case *corev1.Pod:
		errs = append(errs, validatePodSpec(&o.Spec, spec)...)
		for i, ip := range o.Status.PodIPs {
			errs = append(errs, validateIP(ip.IP, field.NewPath("status", "podIPs").Index(i).Child("ip"))...)
		}
	case *appsv1.Deployment:
		errs = append(errs, validateTemplate(o.Spec.Replicas, o.Spec.Selector, &o.Spec.Template, spec)...)
	case *appsv1.StatefulSet:
		errs = append(errs, validateTemplate(o.Spec.Replicas, o.Spec.Selector, &o.Spec.Template, spec)...)
	case *discoveryv1.EndpointSlice:
		errs = append(errs, validateSlice(o)...)
	}
	return errs
}

func validateMeta(obj Resource) field.ErrorList {
	var errs field.ErrorList
	meta := field.NewPath("metadata")
	kind := obj.GetObjectKind().GroupVersionKind().Kind
	if obj.GetName() == "" {
		errs = append(errs, field.Required(meta.Child("name"), "a name, because generateName needs an API server"))
	} else {
		check := validation.IsDNS1123Subdomain
		if kind == "Namespace" || kind == "Service" {
			check = validation.IsDNS1123Label
		}
		for _, msg := range check(obj.GetName()) {
			errs = append(errs, field.Invalid(meta.Child("name"), obj.GetName(), msg))
		}
	}
	switch ns := obj.GetNamespace(); {
	case clusterScoped(kind) && ns != "":
		errs = append(errs, field.Forbidden(meta.Child("namespace"), "a "+kind+" is in no namespace: remove the field"))
	case ns != "":
		for _, msg := range validation.IsDNS1123Label(ns) {
			errs = append(errs, field.Invalid(meta.Child("namespace"), ns, msg))
		}
	}
	return append(errs, metavalidation.ValidateLabels(obj.GetLabels(), meta.Child("labels"))...)
}

func validateService(s *corev1.ServiceSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := map[string]bool{}
	type portKey struct {
		port     int32
		protocol corev1.Protocol
	}
	numbers := map[portKey]bool{}
	for i, p := range s.Ports {
		at := path.Child("ports").Index(i)
		errs = append(errs, validatePort(p.Port, at.Child("port"))...)
		errs = append(errs, validateProtocol(p.Protocol, at.Child("protocol"))...)
		if p.TargetPort != intstr.FromInt32(p.Port) {
			errs = append(errs, validateTarget(p.TargetPort, at.Child("targetPort"))...)
		}
		if len(s.Ports) > 1 && p.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), "a name, because there is more than one port"))
		} else if names[p.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), p.Name))
		}
		key := portKey{p.Port, p.Protocol}
		if numbers[key] {
			errs = append(errs, field.Duplicate(at.Child("port"), p.Port))
		}
		names[p.Name], numbers[key] = true, true
	}
	for i, ip := range s.ClusterIPs {
		if ip == corev1.ClusterIPNone && len(s.ClusterIPs) == 1 {
			continue
		}
		errs = append(errs, validateIP(ip, path.Child("clusterIPs").Index(i))...)
	}
	errs = append(errs, validateIPFamilies(s, path)...)
	return append(errs, metavalidation.ValidateLabels(s.Selector, path.Child("selector"))...)
}

func validateIPFamilies(s *corev1.ServiceSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.ClusterIP != "" && len(s.ClusterIPs) > 0 && s.ClusterIP != s.ClusterIPs[0] {
		errs = append(errs, field.Invalid(path.Child("clusterIP"), s.ClusterIP, "must be the first of clusterIPs"))
	}
	for i, f := range s.IPFamilies {
		if f != corev1.IPv4Protocol && f != corev1.IPv6Protocol {
			errs = append(errs, field.NotSupported(path.Child("ipFamilies").Index(i), f,
				[]corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}))
		}
	}
	return errs
}

func validateTarget(t intstr.IntOrString, path *field.Path) field.ErrorList {
	if t.Type == intstr.Int {
		return validatePort(t.IntVal, path)
	}
	var errs field.ErrorList
	for _, msg := range validation.IsValidPortName(t.StrVal) {
		errs = append(errs, field.Invalid(path, t.StrVal, msg))
	}
	return errs
}

func validatePort(port int32, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range validation.IsValidPortNum(int(port)) {
		errs = append(errs, field.Invalid(path, port, msg))
	}
	return errs
}

func validateProtocol(p corev1.Protocol, path *field.Path) field.ErrorList {
	known := []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}
	for _, k := range known {
		if p == k {
			return nil
		}
	}
	return field.ErrorList{field.NotSupported(path, p, known)}
}

func validateIP(ip string, path *field.Path) field.ErrorList {
	addr, err := netip.ParseAddr(ip)
	if err != nil || addr.Zone() != "" || addr.Is4In6() || addr.IsUnspecified() {
		return field.ErrorList{field.Invalid(path, ip, "must be an IPv4 or IPv6 address such as 10.0.0.1 or fd00::1")}
	}
	return nil
}

func validatePodSpec(spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	errs := validateContainers(spec.InitContainers, path.Child("initContainers"))
	errs = append(errs, validateContainers(spec.Containers, path.Child("containers"))...)
	if len(spec.Containers) == 0 {
		errs = append(errs, field.Required(path.Child("containers"), "at least one container"))
	}
	if sa := spec.ServiceAccountName; sa != "" {
		for _, msg := range validation.IsDNS1123Subdomain(sa) {
			errs = append(errs, field.Invalid(path.Child("serviceAccountName"), sa, msg))
		}
	}
	return errs
}

func validateContainers(containers []corev1.Container, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, c := range containers {
		at := path.Index(i)
		for _, msg := range validation.IsDNS1123Label(c.Name) {
			errs = append(errs, field.Invalid(at.Child("name"), c.Name, msg))
		}
		for j, p := range c.Ports {
			port := at.Child("ports").Index(j)
			errs = append(errs, validatePort(p.ContainerPort, port.Child("containerPort"))...)
			errs = append(errs, validateProtocol(p.Protocol, port.Child("protocol"))...)
		}
	}
	return errs
}

func validateTemplate(replicas *int32, sel *metav1.LabelSelector, t *corev1.PodTemplateSpec, path *field.Path) field.ErrorList {
	errs := validatePodSpec(&t.Spec, path.Child("template", "spec"))
	meta := path.Child("template", "metadata", "labels")
	errs = append(errs, metavalidation.ValidateLabels(t.Labels, meta)...)
	if *replicas < 0 {
		errs = append(errs, field.Invalid(path.Child("replicas"), *replicas, "must not be negative"))
	}
	if sel == nil {
		return append(errs, field.Required(path.Child("selector"), "a selector that matches the labels of the template"))
	}
	parsed, err := metav1.LabelSelectorAsSelector(sel)
	switch {
	case err != nil:
		errs = append(errs, field.Invalid(path.Child("selector"), "", err.Error()))
	case parsed.Empty() || !parsed.Matches(labels.Set(t.Labels)):
		errs = append(errs, field.Invalid(meta, strings.ReplaceAll(labels.Set(t.Labels).String(), ",", ", "),
			"must match spec.selector, which must not be empty"))
	}
	return errs
}

func validateSlice(s *discoveryv1.EndpointSlice) field.ErrorList {
	var errs field.ErrorList
	if s.AddressType != discoveryv1.AddressTypeFQDN {
		for i, ep := range s.Endpoints {
			for j, a := range ep.Addresses {
				at := field.NewPath("endpoints").Index(i).Child("addresses").Index(j)
				bad := validateIP(a, at)
				addr, _ := netip.ParseAddr(a)
				if len(bad) == 0 && addr.Is4() != (s.AddressType == discoveryv1.AddressTypeIPv4) {
					bad = field.ErrorList{field.Invalid(at, a, "must be of addressType "+string(s.AddressType))}
				}
				errs = append(errs, bad...)
			}
		}
	}
	for i, p := range s.Ports {
		at := field.NewPath("ports").Index(i)
		errs = append(errs, validateProtocol(*p.Protocol, at.Child("protocol"))...)
		if p.Port != nil {
			errs = append(errs, validatePort(*p.Port, at.Child("port"))...)
		}
	}
	switch s.AddressType {
	case discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN:
	default:
		errs = append(errs, field.NotSupported(field.NewPath("addressType"), s.AddressType,
			[]discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN}))
	}
	return errs
}
