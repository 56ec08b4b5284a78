package xds

import (
	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/controlplane/compile"
)

// What the server has to know of the contents of Address; all other types are
// opaque to it.

// rank orders a push: workloads go before the services whose endpoints they are.
func rank(r *compile.Resource) int {
	if a, ok := r.Body.(*workloadpb.Address); ok && a.GetService() != nil {
		return 1
	}
	return 0
}

// parents gives the names of the resources that r is related to, so that who
// holds one of those on demand is told of r as well: the services of a workload.
func parents(r *compile.Resource) map[string]*workloadpb.PortList {
	if a, ok := r.Body.(*workloadpb.Address); ok {
		return a.GetWorkload().GetServices()
	}
	return nil
}

// runsOn gives the node of a workload, "" of anything else. A node's workloads
// are sent to its on-demand clients unasked.
func runsOn(r *compile.Resource) string {
	if a, ok := r.Body.(*workloadpb.Address); ok {
		return a.GetWorkload().GetNode()
	}
	return ""
}
