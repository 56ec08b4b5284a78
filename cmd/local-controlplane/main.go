// Command local-controlplane is the control plane of local meshes: the same as that of
// clusters, without what follows the Kubernetes API, so that it is small and soon built.
package main

import (
	"os"

	"github.com/ambit-mesh/ambit/controlplane/command"
)

func main() {
	os.Exit(command.Program{Name: "local-controlplane"}.Main(os.Args[1:], os.Getenv, os.Stderr))
}
