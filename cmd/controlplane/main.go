// Command controlplane tells the nodes of a mesh what it consists of, and
// certifies their workloads.
package main

import (
	"os"

	"github.com/go-logr/zapr"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/ambit-mesh/ambit/controlplane"
	"github.com/ambit-mesh/ambit/controlplane/command"
	"github.com/ambit-mesh/ambit/controlplane/kubernetes"
)

func main() {
	os.Exit(command.Program{Name: "controlplane", Kubernetes: follow}.Main(os.Args[1:], os.Getenv, os.Stderr))
}

// follow has the control plane follow the Kubernetes API, whose libraries log for the
// whole process.
func follow(cfg controlplane.Config) (controlplane.Platform, error) {
	libraries := zapr.NewLogger(cfg.Log.Named("client"))
	klog.SetLogger(libraries)
	ctrllog.SetLogger(libraries)
	return kubernetes.New(cfg)
}
