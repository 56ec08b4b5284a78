package service

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/internal/manifest"
)

// Allocator gives Services their virtual addresses. A service keeps its address
// for as long as it exists, and the same name gets the same address in every
// run unless another one was there first.
type Allocator struct {
	Block4, Block6 netip.Prefix
	// Reserved are addresses that no service may have.
	Reserved []netip.Addr
	// IPv6 is false where the kernel has none.
	IPv6 bool

	held map[string][]netip.Addr // by namespace/name
}

// Assign gives every service its addresses: those that it asks for, those that
// it has, or new ones, in this order. The services are changed in place.
func (a *Allocator) Assign(services []manifest.Object) []manifest.Problem {
	var problems []manifest.Problem
	old := a.held
	a.held = make(map[string][]netip.Addr)
	owner := make(map[netip.Addr]string)
	for _, r := range a.Reserved {
		owner[r] = "the mesh's DNS"
	}
	// Who names an address comes before who takes any, then who has one, and
	// then by name.
	order := slices.Clone(services)
	slices.SortStableFunc(order, func(x, y manifest.Object) int { return a.rank(x, old) - a.rank(y, old) })
	for _, o := range order {
		svc := o.Resource.(*corev1.Service)
		key := svc.Namespace + "/" + svc.Name
		if err := a.assign(svc, key, old[key], owner); err != nil {
			problems = append(problems, o.Problem(err.field, err.message))
		}
	}
	return problems
}

func (a *Allocator) rank(o manifest.Object, old map[string][]netip.Addr) int {
	svc := o.Resource.(*corev1.Service)
	switch {
	case len(svc.Spec.ClusterIPs) > 0:
		return 0
	case len(old[svc.Namespace+"/"+svc.Name]) > 0:
		return 1
	default:
		return 2
	}
}

type assignError struct{ field, message string }

func (a *Allocator) assign(svc *corev1.Service, key string, had []netip.Addr, owner map[netip.Addr]string) *assignError {
	spec := &svc.Spec
	if spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	families, aerr := a.families(spec)
	if aerr != nil {
		return aerr
	}
	spec.IPFamilies = families
	if spec.ClusterIP == corev1.ClusterIPNone {
		return nil
	}
	asked := spec.ClusterIPs
	spec.ClusterIP, spec.ClusterIPs = "", nil
	for _, s := range asked {
		ip, err := netip.ParseAddr(s)
		if err != nil || !a.Block4.Contains(ip) && !a.Block6.Contains(ip) {
			return &assignError{"spec.clusterIPs", fmt.Sprintf("%s: must be in %s or %s, or left out", s, a.Block4, a.Block6)}
		}
		if who, taken := owner[ip]; taken {
			return &assignError{"spec.clusterIPs", fmt.Sprintf("%s is taken by %s: choose another, or leave it out", s, who)}
		}
	}
	for _, f := range families {
		ip, ok := pick(f, asked, had, owner)
		if !ok {
			ip, ok = a.free(f, key, owner)
		}
		if !ok {
			return &assignError{"spec.clusterIPs", fmt.Sprintf("no free %s address is left", f)}
		}
		owner[ip] = "Service " + key
		a.held[key] = append(a.held[key], ip)
		spec.ClusterIPs = append(spec.ClusterIPs, ip.String())
	}
	spec.ClusterIP = spec.ClusterIPs[0]
	return nil
}

// families gives the address families of a service in order.
func (a *Allocator) families(spec *corev1.ServiceSpec) ([]corev1.IPFamily, *assignError) {
	families := slices.Clone(spec.IPFamilies)
	if len(families) == 0 {
		first := corev1.IPv4Protocol
		if len(spec.ClusterIPs) > 0 {
			if ip, err := netip.ParseAddr(spec.ClusterIPs[0]); err == nil && ip.Is6() {
				first = corev1.IPv6Protocol
			}
		}
		families = []corev1.IPFamily{first}
	}
	policy := corev1.IPFamilyPolicySingleStack
	if spec.IPFamilyPolicy != nil {
		policy = *spec.IPFamilyPolicy
	} else if len(families) > 1 || len(spec.ClusterIPs) > 1 {
		policy = corev1.IPFamilyPolicyRequireDualStack
	}
	if spec.IPFamilyPolicy == nil {
		spec.IPFamilyPolicy = &policy
	}
	if policy == corev1.IPFamilyPolicySingleStack {
		families = families[:1]
	} else if len(families) == 1 {
		other := corev1.IPv6Protocol
		if families[0] == other {
			other = corev1.IPv4Protocol
		}
		families = append(families, other)
	}
	if a.IPv6 {
		return families, nil
	}
	if policy == corev1.IPFamilyPolicyRequireDualStack || families[0] == corev1.IPv6Protocol && len(families) == 1 {
		return nil, &assignError{"spec.ipFamilies", "this kernel has no IPv6: use IPv4, or ipFamilyPolicy: PreferDualStack"}
	}
	return []corev1.IPFamily{corev1.IPv4Protocol}, nil
}

// pick finds what was asked for or is held already.
func pick(f corev1.IPFamily, asked []string, had []netip.Addr, owner map[netip.Addr]string) (netip.Addr, bool) {
	for _, s := range asked {
		if ip, err := netip.ParseAddr(s); err == nil && familyOf(ip) == f {
			return ip, true
		}
	}
	for _, ip := range had {
		if _, taken := owner[ip]; !taken && familyOf(ip) == f {
			return ip, true
		}
	}
	return netip.Addr{}, false
}

// free finds an address by the service's name, and further on if that is taken.
func (a *Allocator) free(f corev1.IPFamily, key string, owner map[netip.Addr]string) (netip.Addr, bool) {
	block := a.Block4
	if f == corev1.IPv6Protocol {
		block = a.Block6
	}
	const size = 1 << 16 // of both blocks; more services do not fit anyway
	h := fnv.New32a()
	h.Write([]byte(key))
	start := int(h.Sum32() % size)
	for i := range size {
		raw := block.Masked().Addr().AsSlice()
		n := (start + i) % size
		// The lowest are for people to choose, and the last is a broadcast
		// address in the eyes of many.
		if n < 256 || n == size-1 {
			continue
		}
		raw[len(raw)-2], raw[len(raw)-1] = byte(n>>8), byte(n)
		ip, _ := netip.AddrFromSlice(raw)
		if _, taken := owner[ip]; !taken {
			return ip, true
		}
	}
	return netip.Addr{}, false
}

func familyOf(ip netip.Addr) corev1.IPFamily {
	if ip.Is6() {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}
