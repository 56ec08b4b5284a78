package compile

import (
	"google.golang.org/protobuf/types/known/anypb"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/controlplane/provision"
)

// Reasons of the condition WaypointBound.
const (
	ConditionWaypointBound = "WaypointBound"

	reasonBound        = "Bound"
	reasonWaiting      = "WaitingForWaypoint"
	reasonNotReady     = "WaypointNotReady"
	reasonNotFound     = "GatewayNotFound"
	reasonNotWaypoint  = "GatewayNotWaypoint"
	reasonInvalid      = "GatewayInvalid"
	reasonNotAllowed   = "NotAllowedByListeners"
	reasonNotAddressed = "WaypointForOther"
)

// binding is the waypoint that a service or a workload is bound to.
type binding struct {
	// waypoint is zero if there is none.
	waypoint types.NamespacedName
	// reason and message say why the waypoint cannot be used, "" if it can. It is
	// bound all the same: what needs it is refused.
	reason, message string
	// inherited from the namespace's label.
	inherited bool
	failOpen  bool
	// waiting: the waypoint is made because a namespace's label asks for it, and has
	// never been ready: connections go without it until then.
	waiting bool
}

func (b binding) bound() bool { return b.waypoint.Name != "" }

// addressing is how something is addressed.
type addressing int

const (
	byService addressing = iota
	byWorkload
)

// bindingOf gives the binding of a service or pod. What a namespace's label asks
// for holds as far as the waypoint is for that addressing; what an object's own
// label asks for is refused where it is not.
func (c *Compiler) bindingOf(namespace string, labels, annotations map[string]string, how addressing) binding {
	var ofNamespace map[string]string
	if ns, ok := c.graph.Namespace(namespace); ok {
		ofNamespace = ns.Object.Labels
	}
	return c.bindingUnder(ofNamespace, namespace, labels, annotations, how)
}

// bindingUnder is bindingOf with the labels that the namespace has.
func (c *Compiler) bindingUnder(ofNamespace map[string]string, namespace string, labels, annotations map[string]string, how addressing) binding {
	use := c.graph.WaypointUse(namespace, labels)
	b := binding{waypoint: use.Waypoint, inherited: use.OfNamespace}
	if !b.bound() {
		return b
	}
	b.failOpen = c.failsOpen(namespace, annotations)
	name := "Gateway " + b.waypoint.String()
	refuse := func(reason, message string) binding {
		b.reason, b.message = reason, message
		return b
	}
	gw, ok := c.graph.Waypoint(b.waypoint)
	if !ok {
		return refuse(reasonNotFound, "there is no "+name)
	}
	if gw.Spec.GatewayClassName != graph.WaypointClass {
		return refuse(reasonNotWaypoint, name+" is of class "+string(gw.Spec.GatewayClassName)+", not "+graph.WaypointClass)
	}
	v := provision.Check(gw)
	if len(v.Problems) > 0 {
		return refuse(reasonInvalid, name+": "+v.Problems[0].String())
	}
	if !provision.Admits(gw, v, namespace, ofNamespace) {
		return refuse(reasonNotAllowed, name+" does not admit namespace "+namespace+" (allowedRoutes.namespaces of its listener)")
	}
	if how == byService && !v.Services || how == byWorkload && !v.Workloads {
		if use.OfNamespace {
			return binding{}
		}
		return refuse(reasonNotAddressed, name+" is not for this: its label "+graph.LabelWaypointFor+" is "+purposeOf(v))
	}
	_, written := c.graph.Gateway(b.waypoint)
	b.waiting = b.inherited && !written && !c.hasServed(b.waypoint)
	return b
}

func purposeOf(v provision.Verdict) string {
	switch {
	case v.Services:
		return graph.ForService
	case v.Workloads:
		return graph.ForWorkload
	default:
		return graph.ForNone
	}
}

// failsOpen reads the annotation of an object or else that of its namespace.
func (c *Compiler) failsOpen(namespace string, annotations map[string]string) bool {
	value, ok := annotations[graph.AnnotationFailOpen]
	if !ok {
		if ns, found := c.graph.Namespace(namespace); found {
			value = ns.Object.Annotations[graph.AnnotationFailOpen]
		}
	}
	return value == "true"
}

// gatewayAddress names a waypoint by the hostname of its service. One that cannot
// be used has a name that never resolves (RFC 6761 section 6.4): a proxy refuses
// the connection, and what the waypoint should enforce is never skipped.
func (c *Compiler) gatewayAddress(b binding) *workload.GatewayAddress {
	if !b.bound() || b.waiting {
		return nil
	}
	hostname := c.hostname(b.waypoint)
	if b.reason != "" {
		hostname = b.waypoint.Name + "." + b.waypoint.Namespace + ".refused.invalid"
	}
	return &workload.GatewayAddress{
		Destination: &workload.GatewayAddress_Hostname{Hostname: &workload.NamespacedHostname{
			Namespace: b.waypoint.Namespace, Hostname: hostname,
		}},
		HboneMtlsPort: hbonePort,
	}
}

// waypointOptions go with the address; none while they would say nothing.
func (c *Compiler) waypointOptions(b binding) []*workload.Extension {
	options := &workload.WaypointOptions{FailOpen: b.failOpen}
	if b.waiting {
		options = &workload.WaypointOptions{Announced: c.announced(b)}
	}
	if b.reason != "" {
		options.Refusal = b.message
	}
	if !b.bound() || !options.FailOpen && options.Refusal == "" && options.Announced == nil {
		return nil
	}
	// Packing a message of our own cannot fail: its strings are valid UTF-8 by way
	// of JSON.
	config, err := anypb.New(options)
	if err != nil {
		return nil
	}
	return []*workload.Extension{{Name: workload.WaypointExtension, Config: config}}
}

// waypointFindings says what is wrong with what an object itself says about its
// waypoint.
func (c *Compiler) waypointFindings(owner graph.Key, labels, annotations map[string]string, b binding) []Finding {
	field := "metadata.labels[" + graph.LabelUseWaypoint + "]"
	var findings []Finding
	if value, ok := labels[graph.LabelUseWaypoint]; ok && value == "" {
		findings = append(findings, Finding{
			Object: owner, Field: field,
			Message: "the label is empty and has no effect: name a waypoint, or write none",
		})
	}
	if _, ok := labels[graph.LabelUseWaypointNamespace]; ok && labels[graph.LabelUseWaypoint] == "" {
		findings = append(findings, Finding{
			Object: owner, Field: "metadata.labels[" + graph.LabelUseWaypointNamespace + "]",
			Message: "has no effect without the label " + graph.LabelUseWaypoint + ", which names the waypoint",
		})
	}
	if value, ok := annotations[graph.AnnotationFailOpen]; ok && value != "true" && value != "false" {
		findings = append(findings, Finding{
			Object: owner, Field: "metadata.annotations[" + graph.AnnotationFailOpen + "]",
			Message: "must be \"true\" or \"false\"; until then it counts as false",
		})
	}
	if b.bound() && !b.inherited && b.reason != "" {
		findings = append(findings, Finding{Object: owner, Field: field, Message: b.message + ": " + b.consequence() + "; " + remedy(b.reason)})
	}
	return findings
}

// consequence says what a waypoint that cannot be used means.
func (b binding) consequence() string {
	if b.failOpen {
		return "connections go around the waypoint (" + graph.AnnotationFailOpen + ")"
	}
	return "connections that need this waypoint are refused"
}

func remedy(reason string) string {
	switch reason {
	case reasonNotFound:
		return "create it, or remove the label"
	case reasonNotWaypoint:
		return "use class " + graph.WaypointClass
	case reasonNotAllowed:
		return "admit the namespace there, or use another waypoint"
	case reasonNotAddressed:
		return "change that label to " + graph.ForAll + ", or use another waypoint"
	default:
		return "correct it"
	}
}

// closure gives the resources that a client needs to follow a binding.
func (c *Compiler) closure(b binding) []Key {
	if !b.bound() || b.reason != "" {
		return nil
	}
	if _, ok := c.graph.Service(b.waypoint); !ok {
		return nil
	}
	return append(c.workloadKeys(b.waypoint), Key{TypeAddress, c.serviceName(b.waypoint)})
}

// workloadKeys gives the workloads behind a service that are distributed.
func (c *Compiler) workloadKeys(svc types.NamespacedName) []Key {
	var keys []Key
	for _, pod := range c.graph.PodsOf(svc) {
		k := Key{TypeAddress, c.workloadName(pod)}
		if _, ok := c.store.slots[k]; ok {
			keys = append(keys, k)
		}
	}
	for _, slice := range c.graph.EndpointSlicesOf(svc) {
		keys = append(keys, c.store.owned[sliceKey(slice)]...)
	}
	return keys
}
