package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"google.golang.org/protobuf/types/known/wrapperspb"

	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/controlplane/compile/traffic"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// external is what became of an ExternalService.
type external struct {
	problems  []Finding
	conflict  string
	hosts     []string // that it has
	binding   binding
	addresses []meshv1alpha1.ExternalAddresses
	// virtual addresses of the hosts that have some.
	virtual map[string][]netip.Addr
	behind  map[string][]Key // the workloads of each host
	// originates are the ports to which the waypoint speaks TLS.
	originates []uint32
}

// compileExternal gives a service for each host, and the workloads behind it.
func (c *Compiler) compileExternal(n types.NamespacedName) {
	owner := externalKey(n)
	item, ok := c.graph.ExternalService(n)
	if !ok {
		c.store.put(owner, nil, nil)
		delete(c.externals, n)
		c.compileExternalFronts(n, nil, &external{})
		return
	}
	es := item.Object
	x := c.hostsOf(owner, es)
	var resources []*Resource
	if len(x.hosts) > 0 {
		for _, t := range traffic.HostTLS(mesh{c}, asService(es)) {
			x.originates = append(x.originates, t.GetPort())
		}
		x.binding = c.guardedBinding(n, len(x.originates) > 0)
	}
	for _, h := range x.hosts {
		resources = append(resources, c.externalHost(es, h, &x)...)
	}
	c.externals[n] = x
	c.compileExternalFronts(n, es, &x)
	c.store.put(owner, resources, c.externalFindings(es, x.problems, x.binding))
}

func (c *Compiler) externalFindings(es *meshv1alpha1.ExternalService, problems []Finding, b binding) []Finding {
	owner := externalKey(types.NamespacedName{Namespace: es.Namespace, Name: es.Name})
	findings := append(slices.Clone(problems), c.waypointFindings(owner, es.Labels, es.Annotations, b)...)
	return append(findings, misplaced(owner, "annotations", graph.AnnotationRequireWaypoint, es.Annotations, "a Service")...)
}

// hostsOf says which of its hosts an ExternalService has, and why not the others.
func (c *Compiler) hostsOf(owner graph.Key, es *meshv1alpha1.ExternalService) external {
	x := external{problems: c.validateExternal(owner, es), virtual: make(map[string][]netip.Addr), behind: make(map[string][]Key)}
	if len(x.problems) > 0 {
		return x
	}
	for _, h := range es.Spec.Hosts {
		if by := c.hostTaken(es, h); by != "" {
			x.conflict = "host " + string(h) + " is that of " + by
			x.problems = append(x.problems, Finding{Object: owner, Field: "spec.hosts", Message: x.conflict + ": it is left out here; name it once"})
			continue
		}
		x.hosts = append(x.hosts, string(h))
	}
	return x
}

// settleHosts gives the hosts of a batch their addresses, and marks what has to move.
func (c *Compiler) settleHosts(d *graph.Dirty) {
	for n := range d.ExternalServices {
		for _, h := range c.externals[n].hosts {
			c.virtual.drop(n.Namespace+"/"+h, n)
		}
	}
	for n := range d.ExternalServices {
		item, ok := c.graph.ExternalService(n)
		if !ok {
			continue
		}
		for _, h := range c.hostsOf(externalKey(n), item.Object).hosts {
			if hasVirtual(item.Object, h) {
				c.virtual.want(n.Namespace+"/"+h, virtualHost{n, item.Object.CreationTimestamp.Time})
			}
		}
	}
	for _, n := range c.virtual.settle() {
		d.ExternalServices[n] = struct{}{}
	}
}

// hasVirtual says whether a host has virtual addresses. Names below a wildcard that are
// resolved one by one get theirs by the nodes, when they are asked for.
func hasVirtual(es *meshv1alpha1.ExternalService, host string) bool {
	return es.Spec.Resolution == meshv1alpha1.ResolutionStatic ||
		es.Spec.Resolution != meshv1alpha1.ResolutionNone && !strings.HasPrefix(host, "*.")
}

// hostTaken names what has a host already: a Service, or an older ExternalService.
func (c *Compiler) hostTaken(es *meshv1alpha1.ExternalService, host meshv1alpha1.ExternalHost) string {
	if rest, ok := strings.CutSuffix(string(host), ".svc."+c.options.ClusterDomain); ok {
		return "the cluster (" + rest + ")"
	}
	for _, other := range c.graph.ExternalServicesIn(es.Namespace) {
		if other.Name == es.Name || graph.OlderExternal(es, other) {
			continue
		}
		if slices.Contains(other.Spec.Hosts, host) {
			return "ExternalService " + other.Namespace + "/" + other.Name
		}
	}
	return ""
}

// externalHost gives a host's service and what is behind it.
func (c *Compiler) externalHost(es *meshv1alpha1.ExternalService, host string, x *external) []*Resource {
	key := es.Namespace + "/" + host
	options := &workload.ServiceOptions{External: true}
	body := &workload.Service{
		Name: es.Name, Namespace: es.Namespace, Hostname: host, Canonical: true,
		Waypoint: c.gatewayAddress(x.binding), Extensions: c.waypointOptions(x.binding),
	}
	members := &workload.PortList{}
	for _, p := range es.Spec.Ports {
		target := p.Port
		if p.TargetPort != nil {
			target = *p.TargetPort
		}
		port := &workload.Port{ServicePort: uint32(p.Port), TargetPort: uint32(target), AppProtocol: externalProtocol(p.Protocol)} // #nosec G115 -- validated
		body.Ports, members.Ports = append(body.Ports, port), append(members.Ports, &workload.Port{ServicePort: port.ServicePort, TargetPort: port.TargetPort})
		options.Ports = append(options.Ports, &workload.NamedPort{
			Name: p.Name, Protocol: "tcp", Port: port.ServicePort, Target: port.TargetPort, OriginatesTls: slices.Contains(x.originates, port.ServicePort),
		})
	}
	body.Extensions = append(body.Extensions, extension(workload.ServiceExtension, options))
	var aliases []netip.Addr
	for _, text := range es.Spec.Addresses {
		if p, err := netip.ParsePrefix(text); err == nil {
			length := uint32(p.Bits()) // #nosec G115 -- at most 128
			body.Addresses = append(body.Addresses, &workload.NetworkAddress{Network: c.options.Network, Address: p.Masked().Addr().AsSlice(), Length: &length})
		} else if a, err := netip.ParseAddr(text); err == nil {
			body.Addresses, aliases = append(body.Addresses, c.networkAddress(a)), append(aliases, a)
		}
	}
	resolution := es.Spec.Resolution
	if resolution == meshv1alpha1.ResolutionNone {
		body.LoadBalancing = &workload.LoadBalancing{Mode: workload.LoadBalancing_PASSTHROUGH, HealthPolicy: workload.LoadBalancing_ALLOW_ALL}
	} else if hasVirtual(es, host) {
		vips := c.virtual.of(key)
		x.virtual[host] = vips
		told := meshv1alpha1.ExternalAddresses{Host: meshv1alpha1.ExternalHost(host)}
		for _, a := range vips {
			body.Addresses, told.Addresses = append(body.Addresses, c.networkAddress(a)), append(told.Addresses, a.String())
		}
		aliases = append(aliases, vips...)
		x.addresses = append(x.addresses, told)
	}
	var behind []*Resource
	add := func(id string, w *workload.Workload) {
		w.Uid = c.options.ClusterID + "/" + meshv1alpha1.GroupName + "/ExternalService/" + es.Namespace + "/" + es.Name + "/" + id
		// A name that no pod can have.
		w.Name, w.Namespace, w.Network, w.ClusterId = es.Name+"/"+id, es.Namespace, c.options.Network, c.options.ClusterID
		w.TrustDomain, w.WorkloadType, w.WorkloadName = c.trustDomain(), workload.WorkloadType_POD, es.Name
		w.CanonicalName, w.CanonicalRevision = es.Name, "latest"
		w.NetworkMode = workload.NetworkMode_HOST_NETWORK // its address is not that of a workload of ours
		w.Services = map[string]*workload.PortList{key: members}
		behind = append(behind, resource(TypeAddress, w.Uid, &workload.Address{Type: &workload.Address_Workload{Workload: w}}))
	}
	switch resolution {
	case meshv1alpha1.ResolutionStatic:
		for _, e := range es.Spec.Endpoints {
			a, err := netip.ParseAddr(e.Address)
			if err != nil {
				continue // said by validateExternal
			}
			w := &workload.Workload{Addresses: [][]byte{a.Unmap().AsSlice()}}
			if e.Weight != nil && *e.Weight >= 0 {
				w.Capacity = wrapperspb.UInt32(uint32(*e.Weight)) // #nosec G115 -- not negative
			}
			if e.Region != "" || e.Zone != "" {
				w.Locality = &workload.Locality{Region: e.Region, Zone: e.Zone}
			}
			add(host+"/"+a.String(), w)
		}
	case meshv1alpha1.ResolutionNone:
	default:
		add(host, &workload.Workload{Hostname: host})
	}
	r := resource(TypeAddress, key, &workload.Address{Type: &workload.Address_Service{Service: body}})
	r.Aliases = c.aliases(aliases)
	for _, b := range behind {
		x.behind[host] = append(x.behind[host], b.Key)
	}
	n := types.NamespacedName{Namespace: es.Namespace, Name: es.Name}
	// Looked up when asked: the resource stays the same one where only what is behind it changes.
	r.Related = func() []Key {
		c.mu.RLock()
		defer c.mu.RUnlock()
		x := c.externals[n]
		return append(slices.Clone(x.behind[host]), c.closure(x.binding)...)
	}
	return append([]*Resource{r}, behind...)
}

func externalProtocol(p meshv1alpha1.ExternalProtocol) workload.AppProtocol {
	switch p {
	case "HTTP":
		return workload.AppProtocol_HTTP11
	case "HTTP2":
		return workload.AppProtocol_HTTP2
	case "GRPC":
		return workload.AppProtocol_GRPC
	case "TLS":
		return workload.AppProtocol_TLS
	}
	return workload.AppProtocol_TCP
}

// validateExternal checks what the CRD checks, for objects that did not come through
// an API server.
func (c *Compiler) validateExternal(owner graph.Key, es *meshv1alpha1.ExternalService) []Finding {
	var out []Finding
	add := func(field, format string, args ...any) {
		out = append(out, Finding{Object: owner, Field: field, Message: fmt.Sprintf(format, args...) + "; the ExternalService has no effect until then"})
	}
	spec := &es.Spec
	if len(spec.Hosts) == 0 {
		add("spec.hosts", "name at least one host")
	}
	for i, h := range spec.Hosts {
		if !validHost(string(h)) {
			add("spec.hosts["+strconv.Itoa(i)+"]", "%q is no DNS name of two labels or more in lower case, and no wildcard such as *.example.com", string(h))
		}
	}
	if len(spec.Ports) == 0 {
		add("spec.ports", "name at least one port")
	}
	for i, p := range spec.Ports {
		if p.Port < 1 || p.Port > 65535 || p.TargetPort != nil && (*p.TargetPort < 1 || *p.TargetPort > 65535) {
			add("spec.ports["+strconv.Itoa(i)+"]", "a port is a number from 1 to 65535")
		}
	}
	blocks := false
	for i, a := range spec.Addresses {
		_, err := netip.ParseAddr(a)
		if _, berr := netip.ParsePrefix(a); err != nil && berr == nil {
			blocks = true
		} else if err != nil {
			add("spec.addresses["+strconv.Itoa(i)+"]", "%q is neither an IP address nor a block such as 192.0.2.0/24", a)
		}
	}
	switch spec.Resolution {
	case "", meshv1alpha1.ResolutionDNS, meshv1alpha1.ResolutionStatic:
		if blocks {
			add("spec.addresses", "blocks of addresses need resolution None")
		}
	case meshv1alpha1.ResolutionNone:
		if len(spec.Addresses) == 0 {
			add("spec.addresses", "resolution None needs the addresses that clients connect to")
		}
	default:
		add("spec.resolution", "%q is not possible: write DNS, Static or None", string(spec.Resolution))
	}
	if static := spec.Resolution == meshv1alpha1.ResolutionStatic; static != (len(spec.Endpoints) > 0) {
		add("spec.endpoints", "endpoints are needed for resolution Static, and possible for no other")
	}
	for i, e := range spec.Endpoints {
		if a, err := netip.ParseAddr(e.Address); err != nil || !routable(a) {
			add("spec.endpoints["+strconv.Itoa(i)+"].address", "%q cannot be the address of an endpoint", e.Address)
		}
	}
	return out
}

func validHost(h string) bool {
	labels := strings.Split(strings.TrimPrefix(h, "*."), ".")
	if len(h) > 253 || len(labels) < 2 {
		return false
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
	}
	return true
}

func (x *external) conditions(es *meshv1alpha1.ExternalService) []metav1.Condition {
	accepted := metav1.Condition{
		Type: meshv1alpha1.ConditionAccepted, Status: metav1.ConditionTrue, Reason: string(gatewayv1.PolicyReasonAccepted),
		Message: "known to the mesh", ObservedGeneration: es.Generation,
	}
	if len(x.problems) > 0 {
		accepted.Status, accepted.Reason, accepted.Message = metav1.ConditionFalse, string(gatewayv1.PolicyReasonInvalid), x.problems[0].Field+": "+x.problems[0].Message
		if x.conflict != "" {
			accepted.Reason, accepted.Message = meshv1alpha1.ReasonHostTaken, x.conflict
		}
	}
	return []metav1.Condition{accepted}
}

// externalStatus gives the whole status of an ExternalService.
func (c *Compiler) externalStatus(n types.NamespacedName) (meshv1alpha1.ExternalServiceStatus, bool) {
	x, ok := c.externals[n]
	item, found := c.graph.ExternalService(n)
	if !ok || !found {
		return meshv1alpha1.ExternalServiceStatus{}, false
	}
	out := meshv1alpha1.ExternalServiceStatus{Addresses: x.addresses, Conditions: x.conditions(item.Object)}
	if x.binding.bound() {
		out.Conditions = append(out.Conditions, c.boundCondition(item.Object.Generation, x.binding))
	}
	return out, true
}

// externalStatuses gives the status of every ExternalService.
func (c *Compiler) externalStatuses() []Status {
	out := make([]Status, 0, len(c.externals))
	for n := range c.externals {
		k := externalKey(n)
		s, _ := c.externalStatus(n)
		out = append(out, Status{Object: k, Origin: c.graph.Origin(k, ""), Status: meshv1alpha1.PolicyStatus{Conditions: s.Conditions}})
	}
	return out
}

// ExternalStatus gives the whole status of an ExternalService.
func (c *Compiler) ExternalStatus(n types.NamespacedName) (meshv1alpha1.ExternalServiceStatus, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.externalStatus(n)
}
