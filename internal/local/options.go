package local

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/controlplane/provision"
	"github.com/ambit-mesh/ambit/internal/local/sandbox"
	"github.com/ambit-mesh/ambit/internal/local/wire"
)

// Options say what to run.
type Options struct {
	Name string `json:"name"`
	// RuntimeDir is where the state directory is made.
	RuntimeDir string `json:"-"`
	// Manifests is the directory that is run and watched.
	Manifests string `json:"manifests"`
	Nodes     int    `json:"nodes"`
	// Mesh is false for the network and the workloads alone.
	Mesh bool `json:"mesh"`
	// BinDir holds the mesh's programs. It is also the first place where the
	// commands of containers are looked for.
	BinDir string `json:"binDir"`
	// Args are further arguments of the mesh's programs, by program.
	Args map[string][]string `json:"args,omitempty"`

	TrustDomain   string `json:"trustDomain"`
	ClusterDomain string `json:"clusterDomain"`
	LogLevel      string `json:"logLevel"`
	// SearchPath is the PATH of containers, after BinDir.
	SearchPath string `json:"searchPath"`
	// Rootless is set where users cannot be switched.
	Rootless bool `json:"rootless"`
}

// The mesh's programs.
const (
	programControlPlane = "ambit-local-controlplane"
	programZtunnel      = "ambit-ztunnel"
	programNodeAgent    = "ambit-nodeagent"
)

// argsOf gives the name that a program has in Options.Args.
func argsOf(program string) string {
	return strings.TrimPrefix(strings.TrimPrefix(program, "ambit-"), "local-")
}

// complete checks the options and gives a copy with everything filled in.
func (o Options) complete() (Options, error) {
	var err error
	if o.Nodes < 1 || o.Nodes > wire.MaxNodes {
		return o, fmt.Errorf("--nodes %d: want 1 to %d", o.Nodes, wire.MaxNodes)
	}
	if o.Manifests, err = filepath.Abs(o.Manifests); err != nil {
		return o, fmt.Errorf("--file: %w", err)
	}
	if info, err := os.Stat(o.Manifests); err != nil {
		return o, fmt.Errorf("--file: %w: name a directory of Kubernetes manifests", err)
	} else if !info.IsDir() {
		return o, fmt.Errorf("--file: %s is a file: name the directory that it is in", o.Manifests)
	}
	if o.BinDir == "" {
		self, err := os.Executable()
		if err != nil {
			return o, fmt.Errorf("find this program's directory: %w; set --bin-dir", err)
		}
		o.BinDir = filepath.Dir(self)
	}
	if o.BinDir, err = filepath.Abs(o.BinDir); err != nil {
		return o, fmt.Errorf("--bin-dir: %w", err)
	}
	programs := []string{programControlPlane, programZtunnel, programNodeAgent}
	for name := range o.Args {
		// Without waypoints their program is not needed.
		if !slices.ContainsFunc(append(programs, provision.Program), func(p string) bool { return argsOf(p) == name }) {
			return o, fmt.Errorf("--component-arg %s=...: there is no such program: want controlplane, ztunnel, nodeagent or waypoint", name)
		}
	}
	if o.Mesh {
		for _, p := range programs {
			if _, err := os.Stat(filepath.Join(o.BinDir, p)); err != nil {
				return o, fmt.Errorf("%w: build it (make build), set --bin-dir to where it is, or run without the mesh (--mesh=false)", err)
			}
		}
	}
	o.SearchPath = o.BinDir + ":" + os.Getenv("PATH")
	o.Rootless = os.Geteuid() != 0
	return o, nil
}

// Start makes the sandbox of a local mesh and gives its keeper. The mesh in it
// may not be ready yet, and ends with this process.
func Start(o Options) (*sandbox.Sandbox, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	path, err := sandbox.Path(o.RuntimeDir, o.Name)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	return sandbox.Start(sandbox.Config{Name: o.Name, Program: insideProgram(), Path: path, Keep: []string{o.Manifests, o.BinDir}, Orders: raw})
}
