package pod

import (
	"context"
	"net/netip"

	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/internal/local/process"
	"github.com/ambit-mesh/ambit/internal/local/wire"
)

// Host is what pods of one node run on.
type Host struct {
	Node   *wire.Node
	Reaper *process.Reaper
	// Capturer is told of pods before their first program starts; nil without a
	// mesh.
	Capturer Capturer
	// Files is the directory for files of pods, Logs that for their output.
	Files, Logs string
	// Hidden are directories that programs need not see.
	Hidden []string
	// SearchPath is the PATH of programs.
	SearchPath string
	// Domain is the cluster domain.
	Domain string
	// DNS are the addresses of the name server.
	DNS []netip.Addr
	// Rootless means that users cannot be switched.
	Rootless bool
	Log      *zap.Logger
}

// Capturer hands pods to the mesh.
type Capturer interface {
	// Add blocks until the pod is captured, or is known to be left alone.
	Add(ctx context.Context, s Sandbox) error
	// Del ends what Add began.
	Del(ctx context.Context, uid types.UID) error
}

// Sandbox is a pod as the mesh is told of it.
type Sandbox struct {
	Netns     string
	Name      string
	Namespace string
	UID       types.UID
	IPs       []netip.Addr
}
