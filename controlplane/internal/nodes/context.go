package nodes

import "context"

// Caller is who has proved to be calling: a node, or a workload on one.
type Caller struct {
	Node string
	// Workload is nil for a node's own programs.
	Workload *Workload
	// Agent is the pod by which a node's program has proved itself; nil where the
	// node itself has a credential.
	Agent *Agent
}

// Agent is a pod that asks for the node that it runs on.
type Agent struct{ Namespace, Pod, UID string }

// Workload is a pod that asks for itself. It is a waypoint.
type Workload struct {
	Namespace, Pod, UID string
	ServiceAccount      string
	// Gateway, in the same namespace, that the pod was made for.
	Gateway string
}

// Name gives what logs and limits know the caller by.
func (c Caller) Name() string {
	if w := c.Workload; w != nil {
		return c.Node + "/" + w.Namespace + "/" + w.Pod
	}
	return c.Node
}

func (c Caller) equal(o Caller) bool {
	return c.Node == o.Node && same(c.Workload, o.Workload) && same(c.Agent, o.Agent)
}

func same[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

type contextKey struct{}

// NewContext gives a context that carries who a caller has proved to be.
func NewContext(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, contextKey{}, c)
}

// FromContext gives who the caller has proved to be.
func FromContext(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(contextKey{}).(Caller)
	return c, ok && c.Node != ""
}
