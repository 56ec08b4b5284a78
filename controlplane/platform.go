package controlplane

import (
	"context"
	"net"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/controlplane/internal/ca"
	"github.com/ambit-mesh/ambit/controlplane/internal/nodes"
	"github.com/ambit-mesh/ambit/internal/lifecycle"
)

// Platform is what a control plane follows that does not read files. Its methods are
// called once each, Trust first; neither starts anything.
type Platform interface {
	// Trust says who callers are and who shares the authority.
	Trust(pods nodes.Pods) (Trust, error)
	// Follow makes what follows the platform.
	Follow(Parts) (Follows, error)
}

// Trust is what on a platform stands for the files of credentials and of the authority.
type Trust struct {
	Prover nodes.Prover
	// Store is where replicas share the authority, which the one that Leads renews.
	Store ca.Store
	Leads func() bool
}

// Parts are what a control plane hands to its platform.
type Parts struct {
	Compiler  *compile.Compiler
	Authority *ca.Authority
	Engine    Engine
	// Synced is closed when the first complete state is distributed.
	Synced <-chan struct{}
	Ready  *lifecycle.Readiness
}

// Engine is what of a control plane changes the mesh.
type Engine interface {
	// Objects takes a batch of the source, the complete state first.
	Objects(compile.Input)
	// Await returns when a condition holds of the mesh and what it holds of is
	// distributed.
	Await(ctx context.Context, holds func() bool) error
}

// Releaser makes releases known to all replicas.
type Releaser interface {
	Release(ctx context.Context, releases []compile.Release)
}

// Follows is what a control plane has of its source and of the platform around it.
// All but Source and Reports may be nil.
type Follows struct {
	// Source hands objects to the engine.
	Source lifecycle.Runner
	// Reports takes what node agents say.
	Reports nodes.Sink
	// Releases is told what is released, in place of the engine. Company says whether
	// other replicas serve clients.
	Releases Releaser
	Company  func() bool
	// Touched is told which objects may have another status.
	Touched func([]graph.Key)
	// Webhook is where API servers are answered.
	Webhook net.Addr
	// Add adds what runs beside the source.
	Add func(*lifecycle.Group)
}

var _ Engine = (*engine)(nil)
