package cluster

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/internal/cli"
)

func (f *clusterFlags) mesh(ctx context.Context) (cli.Mesh, error) {
	c, err := f.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return clusterMesh{c, func(format string, args ...any) { fmt.Fprintf(f.s.Err, format+"\n", args...) }}, nil
}

// aboutCluster says what the commands about clusters need.
const aboutCluster = "\n\nThe proxies are asked through the API server, at their admin ports, which are on loopback only. You need\n" +
	"the rights to list pods and to create pods/portforward, in the namespace of the mesh and where waypoints\n" +
	"run. Proxies that cannot be reached are named on standard error; the exit code is 1 if none can be."

func newObserve(s cli.Streams) *cobra.Command {
	cmd := new(cobra.Command)
	cli.BuildObserve(cmd, s, "ambit observe", aboutCluster, addCluster(cmd, s).mesh)
	return cmd
}

func newEdges(s cli.Streams) *cobra.Command {
	cmd := new(cobra.Command)
	cli.BuildEdges(cmd, s, "ambit edges", aboutCluster, addCluster(cmd, s).mesh)
	return cmd
}
