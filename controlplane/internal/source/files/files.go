package files

import (
	"context"
	"slices"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/internal/manifest"
)

// Sink takes what the source delivers. Both methods are called from Run, one
// call at a time.
type Sink interface {
	// Objects takes a batch of changes. The first call is the complete state,
	// even if that is empty.
	Objects(compile.Input)
	// Problems takes everything that is wrong with the manifests now, whenever
	// that changes. It is called before the Objects of the same change.
	Problems([]manifest.Problem)
}

// Source follows directories of manifests.
type Source struct {
	watcher *manifest.Watcher
}

// New checks that the directories exist. Later ones overlay earlier ones.
func New(dirs []string, sink Sink) (*Source, error) {
	d := &delivery{sink: sink}
	w, err := manifest.NewWatcher(manifest.Config{Dirs: dirs, Apply: d.apply})
	if err != nil {
		return nil, err
	}
	return &Source{watcher: w}, nil
}

// Run delivers until ctx ends.
func (s *Source) Run(ctx context.Context) error { return s.watcher.Run(ctx) }

// delivery remembers what the sink was told.
type delivery struct {
	sink     Sink
	started  bool
	problems []manifest.Problem
}

func (d *delivery) apply(b manifest.Batch) {
	if !slices.Equal(b.Problems, d.problems) {
		d.problems = b.Problems
		d.sink.Problems(b.Problems)
	}
	if in := Input(b); !d.started || len(in.Upserts)+len(in.Deletes) > 0 {
		d.started = true
		d.sink.Objects(in)
	}
}

// Input gives the change of objects that a batch of manifests is.
func Input(b manifest.Batch) compile.Input {
	var in compile.Input
	for _, o := range b.Upserts {
		in.Upserts = append(in.Upserts, graph.Entry{Object: o.Resource, Origin: o.Where})
	}
	for _, k := range b.Deletes {
		in.Deletes = append(in.Deletes, graph.Key{Group: k.Group, Kind: k.Kind, Namespace: k.Namespace, Name: k.Name})
	}
	return in
}
