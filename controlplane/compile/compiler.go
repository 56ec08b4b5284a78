package compile

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/controlplane/compile/policy"
	"github.com/ambit-mesh/ambit/controlplane/compile/route"
	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/internal/identity"
)

// Options are the mesh-wide constants of the output.
type Options struct {
	// ClusterID is the first part of every workload uid; Kubernetes when empty.
	ClusterID string
	// Network of all addresses. Empty is a network too.
	Network string
	// TrustDomain of all identities; cluster.local when empty.
	TrustDomain string
	// ClusterDomain is the DNS suffix of service names; cluster.local when empty.
	ClusterDomain string
	// RootNamespace holds mesh-wide policies; ambit-system when empty.
	RootNamespace string
	// Outbound is what pods may connect to where their namespace does not say:
	// allow-any, also when empty, or registry-only.
	Outbound string
	// CapturedByCondition reads from a condition of the pods whether they are
	// captured (ConditionCaptured), and not from reports, restored pods and
	// confirmed releases; and from one of the namespaces whether their waypoint is
	// bound, and not from what was restored: so all replicas of a control plane agree.
	CapturedByCondition bool
	// IstioLabels honours the istio.io twins of the mesh's labels, and the class
	// istio-waypoint.
	IstioLabels bool
	// Transport is what tunnels of pods prefer whose annotations say nothing.
	Transport workload.Transport_Preference
}

func (o Options) withDefaults() (Options, error) {
	o.ClusterID = cmp.Or(o.ClusterID, "Kubernetes")
	o.TrustDomain = cmp.Or(o.TrustDomain, identity.DefaultTrustDomain)
	o.ClusterDomain = cmp.Or(o.ClusterDomain, "cluster.local")
	o.RootNamespace = cmp.Or(o.RootNamespace, policy.DefaultRootNamespace)
	if err := identity.ValidateTrustDomain(o.TrustDomain); err != nil {
		return o, fmt.Errorf("trust domain: %w", err)
	}
	if msgs := validation.IsDNS1123Subdomain(o.ClusterDomain); len(msgs) > 0 {
		return o, fmt.Errorf("cluster domain %q: %s", o.ClusterDomain, msgs[0])
	}
	if msgs := validation.IsDNS1123Label(o.RootNamespace); len(msgs) > 0 {
		return o, fmt.Errorf("root namespace %q: %s", o.RootNamespace, msgs[0])
	}
	switch o.Outbound {
	case "", graph.OutboundAllowAny, graph.OutboundRegistryOnly:
	default:
		return o, fmt.Errorf("outbound mode %q: want %s or %s", o.Outbound, graph.OutboundAllowAny, graph.OutboundRegistryOnly)
	}
	return o, nil
}

// Compiler holds the mesh and its output. Apply is called by one goroutine at a
// time; all other methods may be called at any time from any goroutine.
type Compiler struct {
	options Options

	mu       sync.RWMutex // guards everything below
	graph    *graph.Graph
	store    store
	captures captures
	bounds   bounds
	policies policies
	// parents has, for each Service and ExternalService, what the statuses of its routes say.
	parents map[graph.Key][]route.Parent
	// caches have the translations of the routes of each Service.
	caches map[types.NamespacedName]*route.Cache
	// attached has the statuses of policies that are attached to services or
	// routes; versions are services that routes of others send requests to.
	attached map[graph.Key]meshv1alpha1.PolicyStatus
	versions map[types.NamespacedName]struct{}
	// served is the waypoint that carries out the routes of each of them.
	served map[graph.Key]types.NamespacedName
	// retold are objects that are told something else by the batch under way.
	retold    map[graph.Key]struct{}
	externals map[types.NamespacedName]external
	virtual   virtual
	// podUID is the uid under which each pod has a capture state.
	podUID map[types.NamespacedName]types.UID
	// begun are the releases that began in the batch under way.
	begun []Release
}

// New gives a compiler of an empty mesh.
func New(opts Options) (*Compiler, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Compiler{
		options:   opts,
		graph:     graph.New(),
		store:     newStore(),
		captures:  newCaptures(),
		bounds:    bounds{of: make(map[types.NamespacedName]struct{})},
		policies:  newPolicies(policy.Options{RootNamespace: opts.RootNamespace, TrustDomain: opts.TrustDomain}),
		parents:   make(map[graph.Key][]route.Parent),
		caches:    make(map[types.NamespacedName]*route.Cache),
		attached:  make(map[graph.Key]meshv1alpha1.PolicyStatus),
		versions:  make(map[types.NamespacedName]struct{}),
		served:    make(map[graph.Key]types.NamespacedName),
		retold:    make(map[graph.Key]struct{}),
		podUID:    make(map[types.NamespacedName]types.UID),
		externals: make(map[types.NamespacedName]external),
		virtual:   newVirtual(virtualSlots),
	}, nil
}

// Apply takes a batch and gives what it changed in the output.
func (c *Compiler) Apply(in Input) Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.options.IstioLabels {
		in.Upserts = slices.Clone(in.Upserts)
		for i := range in.Upserts {
			in.Upserts[i].Object = graph.FromIstio(in.Upserts[i].Object)
		}
	}
	dirty := c.graph.Apply(graph.Changes{Upserts: in.Upserts, Deletes: in.Deletes})
	c.applyCaptures(in, dirty)
	c.applyBounds(in, dirty)
	c.compilePolicies(dirty)
	c.compilePeers(dirty)
	for n := range dirty.Namespaces {
		c.compileNamespace(n)
	}
	for n := range dirty.Gateways {
		c.compileGateway(n)
	}
	for n := range dirty.Services {
		c.compileService(n, dirty)
	}
	for n := range dirty.Pods {
		c.compilePod(n)
	}
	c.settleHosts(dirty)
	for n := range dirty.ExternalServices {
		c.compileExternal(n)
	}
	for n := range dirty.EndpointSlices {
		c.compileSlice(n)
	}
	c.compileTraffic(dirty)
	out := c.result()
	out.Touched = c.touchedBy(dirty)
	return out
}

func (c *Compiler) result() Result {
	out := Result{Releasing: c.begun, CapturedChanged: c.captures.changed, BoundChanged: c.bounds.changed}
	out.Delta, out.NewFindings = c.store.finish()
	for i := range out.NewFindings {
		c.locate(&out.NewFindings[i])
	}
	c.begun, c.captures.changed, c.bounds.changed = nil, false, false
	clear(c.captures.restored)
	slices.SortFunc(out.Releasing, func(a, b Release) int { return cmp.Compare(a.UID, b.UID) })
	slices.SortFunc(out.NewFindings, Finding.compare)
	out.NewFindings = slices.Compact(out.NewFindings)
	return out
}
