// Command cni is ambit-cni, the plugin that a container runtime runs for each pod
// of the node. The node agent installs it.
package main

import (
	"os"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/plugin"
)

func main() {
	skel.PluginMainFuncs(plugin.Funcs(os.Stdout, os.Stderr), plugin.Versions(), "ambit-cni: makes enrolled pods wait until the mesh has them")
}
