package policy

import (
	"cmp"
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/security"
)

// Peers holds the PeerAuthentications of a mesh. It is immutable and safe for
// concurrent use; a change of any of them makes a new one.
type Peers struct {
	opts       Options
	mesh       *peer
	namespaces map[string]*peer
	// workloads are those with a Pod target, by namespace, the deciding one
	// first.
	workloads map[string][]*peer
	all       []*peer
}

// Effective is what the PeerAuthentications mean for one workload.
type Effective struct {
	// Mode of every port that Ports does not name.
	Mode v1alpha1.MTLSMode
	// Ports are the ports whose mode differs from Mode.
	Ports map[uint16]v1alpha1.MTLSMode
	// Policy is the resource name of the Authorization that the workload has to
	// list for this to be enforced, or "" if it needs none.
	Policy string
	// DecidedBy is the namespace/name of the most specific PeerAuthentication,
	// or "" if there is none.
	DecidedBy string
}

// PeerStatus is what the status of one PeerAuthentication should say.
type PeerStatus struct {
	Namespace, Name string
	Status          v1alpha1.PolicyStatus
	// Problems are why the policy is not used as written.
	Problems []Problem
}

// peer is a PeerAuthentication that has been read.
type peer struct {
	object  *v1alpha1.PeerAuthentication
	targets Targets
	// mode is "" when it is inherited.
	mode     v1alpha1.MTLSMode
	ports    map[uint16]v1alpha1.MTLSMode
	problems []Problem
	// supersededBy names the policy that has the same target and is older.
	supersededBy string
}

// NewPeers reads all PeerAuthentications of a mesh. It costs what reading them
// costs, whatever the number of workloads.
func NewPeers(objects []*v1alpha1.PeerAuthentication, opts Options) *Peers {
	s := &Peers{opts: opts.withDefaults(), namespaces: map[string]*peer{}, workloads: map[string][]*peer{}}
	ordered := slices.Clone(objects)
	slices.SortFunc(ordered, older)
	sameTarget := map[string]*peer{}
	for _, object := range ordered {
		p := s.read(object)
		s.all = append(s.all, p)
		key := p.targetKey()
		if first, ok := sameTarget[key]; ok {
			p.supersededBy = first.name()
			continue
		}
		sameTarget[key] = p
		switch p.targets.Kind {
		case TargetMesh:
			s.mesh = p
		case TargetNamespace:
			if !p.byPod() {
				s.namespaces[object.Namespace] = p
				continue
			}
			s.workloads[object.Namespace] = append(s.workloads[object.Namespace], p)
		default:
			s.workloads[object.Namespace] = append(s.workloads[object.Namespace], p)
		}
	}
	return s
}

// older orders by age, then by name, then by namespace.
func older(a, b *v1alpha1.PeerAuthentication) int {
	return cmp.Or(
		a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
		cmp.Compare(a.Name, b.Name),
		cmp.Compare(a.Namespace, b.Namespace),
	)
}

// read takes a policy that cannot be read for STRICT on everything that its
// target could have meant.
func (s *Peers) read(object *v1alpha1.PeerAuthentication) *peer {
	p := &peer{object: object, problems: ValidatePeer(object)}
	if len(p.problems) > 0 {
		p.mode = v1alpha1.ModeStrict
	} else {
		p.readModes()
	}
	refs := object.Spec.TargetRefs
	switch {
	case len(validatePeerTargets(refs)) > 0 || refs[0].Kind == v1alpha1.TargetNamespace:
		p.targets = namespaceTargets(object.Namespace, s.opts)
	default:
		p.targets = podTargets(object.Namespace, refs[0].Selector)
	}
	return p
}

func (p *peer) readModes() {
	if m := p.object.Spec.MTLS; m != nil {
		p.mode = cmp.Or(m.Mode, v1alpha1.ModePermissive)
	}
	for _, port := range p.object.Spec.PortLevel {
		if p.ports == nil {
			p.ports = map[uint16]v1alpha1.MTLSMode{}
		}
		p.ports[uint16(port.Port)] = port.Mode
	}
}

func (p *peer) name() string { return p.object.Namespace + "/" + p.object.Name }

// byPod says that the target is pods, so that the policy is more specific than
// one for the namespace even if it chooses every pod.
func (p *peer) byPod() bool {
	refs := p.object.Spec.TargetRefs
	return len(validatePeerTargets(refs)) == 0 && refs[0].Kind == v1alpha1.TargetPod
}

func (p *peer) targetKey() string {
	switch {
	case p.targets.Kind == TargetMesh:
		return "mesh"
	case !p.byPod():
		return p.object.Namespace
	case p.targets.Selector == nil:
		return p.object.Namespace + "/"
	default:
		return p.object.Namespace + "/" + p.targets.Selector.String()
	}
}

// Effective gives the mode of a workload by its namespace and labels.
func (s *Peers) Effective(namespace string, podLabels map[string]string) Effective {
	for _, p := range s.workloads[namespace] {
		if p.targets.Selects(namespace, podLabels) {
			return s.effective(p)
		}
	}
	if p := s.namespaces[namespace]; p != nil {
		return s.effective(p)
	}
	if s.mesh != nil {
		return s.effective(s.mesh)
	}
	return Effective{Mode: v1alpha1.ModePermissive}
}

// effective gives the meaning of the policy that decides for a workload.
func (s *Peers) effective(p *peer) Effective {
	e := Effective{Mode: s.mode(p), DecidedBy: p.name()}
	for port, mode := range p.ports {
		if mode == e.Mode {
			continue
		}
		if e.Ports == nil {
			e.Ports = map[uint16]v1alpha1.MTLSMode{}
		}
		e.Ports[port] = mode
	}
	switch {
	case e.Ports != nil:
		e.Policy = p.object.Namespace + "/" + convertedPrefix + p.object.Name
	case e.Mode == v1alpha1.ModeStrict:
		e.Policy = s.opts.RootNamespace + "/" + StaticStrict
	}
	return e
}

// mode follows inheritance from the workload to the namespace to the mesh.
func (s *Peers) mode(p *peer) v1alpha1.MTLSMode {
	chain := []*peer{p}
	if p.byPod() {
		chain = append(chain, s.namespaces[p.object.Namespace])
	}
	for _, c := range append(chain, s.mesh) {
		if c != nil && c.mode != "" {
			return c.mode
		}
	}
	return v1alpha1.ModePermissive
}

// Statuses gives the status of every PeerAuthentication, by namespace and name.
func (s *Peers) Statuses() []PeerStatus {
	out := make([]PeerStatus, 0, len(s.all))
	for _, p := range s.all {
		out = append(out, PeerStatus{
			Namespace: p.object.Namespace, Name: p.object.Name,
			Status: p.status(), Problems: p.problems,
		})
	}
	slices.SortFunc(out, func(a, b PeerStatus) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out
}

func (p *peer) status() v1alpha1.PolicyStatus {
	v := verdict{ref: namespaceRef(p.object.Namespace)}
	switch {
	case len(p.problems) > 0:
		v.reason = string(gatewayv1.PolicyReasonInvalid)
		v.message = "refused as a whole: " + listed(p.problems) + "; it counts as STRICT until then"
	case p.supersededBy != "":
		v.reason = string(gatewayv1.PolicyReasonConflicted)
		v.message = "PeerAuthentication " + p.supersededBy + " has the same target and comes first, by age or else by name; delete one of the two"
	}
	return status(p.object.Generation, v, []verdict{v})
}

// Authorizations gives the resources that enforce the modes, by name. The
// static one is there as soon as there is any PeerAuthentication.
func (s *Peers) Authorizations() []*security.Authorization {
	if len(s.all) == 0 {
		return nil
	}
	out := []*security.Authorization{staticStrict(s.opts)}
	for _, p := range s.all {
		if p.supersededBy != "" {
			continue
		}
		if e := s.effective(p); e.Ports != nil {
			out = append(out, converted(p, e))
		}
	}
	slices.SortFunc(out, func(a, b *security.Authorization) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out
}
