package compile

import (
	"k8s.io/apimachinery/pkg/types"

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
}

// Input is one batch of changes. All parts are optional.
type Input struct {
	// Upserts and Deletes are changes of objects. The caller must not modify an
	// object after handing it in.
	Upserts []graph.Entry
	Deletes []graph.Key
	// Restored is what Captured gave before the control plane restarted. It
	// belongs in the first batch, together with all objects.
	Restored []CapturedPod
	// Reports are what node agents said since the last batch, in order.
	Reports []CaptureReport
	// Released confirms Result.Releasing: every connected ztunnel has
	// acknowledged the workload without a tunnel, or was given up on.
	Released []Release
}

// CapturedPod is a pod that peers reach by tunnel, or did until a moment ago.
type CapturedPod struct {
	UID  types.UID `json:"uid"`
	Node string    `json:"node"`
}

// CaptureReport is a message of one node's agent. The node is the one that the
// agent has proved to be: reports on pods of other nodes are disregarded.
type CaptureReport struct {
	Node string
	// Snapshot says that pods of the node that are not named are released.
	Snapshot bool
	Pods     []PodCapture
}

// PodCapture is the state of one pod in its network namespace.
type PodCapture struct {
	UID      types.UID
	Captured bool
	// Message says why capturing failed; "" otherwise.
	Message string
}

// Release names one attempt to release a pod. A confirmation of an attempt that
// a label has overtaken in the meantime does nothing.
type Release struct {
	UID   types.UID
	Epoch uint64
}

// Result is what a batch did.
type Result struct {
	Delta
	// Releasing are pods whose workloads lost their tunnel in this batch and
	// which stay captured until the caller confirms them in Input.Released.
	Releasing []Release
	// CapturedChanged says that Captured gives something else than before the
	// batch: persist it before distributing the Delta.
	CapturedChanged bool
}

// Compiler holds the mesh and its output. Apply is called by one goroutine at a
// time; all other methods may be called at any time from any goroutine.
type Compiler struct {
	options Options
}

// New gives a compiler of an empty mesh.
func New(opts Options) (*Compiler, error) {
	return &Compiler{options: opts}, nil
}

// Apply takes a batch and gives what it changed in the output.
func (c *Compiler) Apply(in Input) Result {
	return Result{}
}

// Captured gives the pods to hand to a successor as Input.Restored, sorted by
// uid.
func (c *Compiler) Captured() []CapturedPod { return nil }

// Releasing gives all releases that await confirmation, sorted by uid.
func (c *Compiler) Releasing() []Release { return nil }

// Lookup finds one resource of the output.
func (c *Compiler) Lookup(k Key) (*Resource, bool) { return nil, false }

// Resources gives all resources of a type, sorted by name.
func (c *Compiler) Resources(typeURL string) []*Resource { return nil }

// NodeRuns says whether a certificate for id may be given to a node: nil if a
// live pod of that namespace and service account is bound to the node, or an
// error wrapping ErrNotRunning that says why not. A pod is live until it has
// finished (Succeeded, Failed) or is deleted; one that is terminating is.
func (c *Compiler) NodeRuns(node string, id identity.ID) error { return ErrNotRunning }

// Findings gives what is wrong with the objects, sorted by object.
func (c *Compiler) Findings() []Finding { return nil }

// Statuses gives the conditions of all policies, sorted by object.
func (c *Compiler) Statuses() []Status { return nil }
