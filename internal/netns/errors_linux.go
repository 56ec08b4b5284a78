package netns

import "errors"

var (
	// ErrGone says that a path no longer leads to a network namespace: its pod
	// was removed, or the node was restarted.
	ErrGone = errors.New("network namespace is gone")
	// ErrNotNamespace says that a path or descriptor is something else.
	ErrNotNamespace = errors.New("not a network namespace")
)
