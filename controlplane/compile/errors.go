package compile

import "errors"

// ErrNotRunning is wrapped by the errors of Compiler.NodeRuns.
var ErrNotRunning = errors.New("the node does not run this identity")
