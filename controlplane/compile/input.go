package compile

import (
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// Input is one batch of changes. All parts are optional.
type Input struct {
	// Upserts and Deletes are changes of objects. The caller must not modify an
	// object after handing it in.
	Upserts []graph.Entry
	Deletes []graph.Key
	// Restored is what Captured gave before the control plane restarted. It
	// belongs in the first batch, together with all objects.
	Restored []CapturedPod
	// RestoredWaypoints is what BoundWaypoints gave then, for the same batch.
	RestoredWaypoints []types.NamespacedName
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
	// BoundChanged says the same of BoundWaypoints.
	BoundChanged bool
	// NewFindings are those that were not there before the batch.
	NewFindings []Finding
	// Touched are the objects whose status may be another (Compiler.StatusOf),
	// sorted. Some of them may be gone.
	Touched []graph.Key
}
