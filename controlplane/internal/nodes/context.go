package nodes

import "context"

type contextKey struct{}

// NewContext gives a context that carries the node a caller has proved to be.
func NewContext(ctx context.Context, node string) context.Context {
	return context.WithValue(ctx, contextKey{}, node)
}

// FromContext gives the node that the caller has proved to be.
func FromContext(ctx context.Context) (string, bool) {
	node, ok := ctx.Value(contextKey{}).(string)
	return node, ok && node != ""
}
