package compile

import (
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/types"
)

// Resource type URLs, as they appear in delta ADS.
const (
	TypeAddress       = "type.googleapis.com/istio.workload.Address"
	TypeAuthorization = "type.googleapis.com/istio.security.Authorization"
	TypePod           = "type.googleapis.com/ambit.node.v1.Pod"
	TypeNamespace     = "type.googleapis.com/ambit.node.v1.Namespace"
	TypeFrontend      = "type.googleapis.com/ambit.waypoint.v1.Frontend"
	TypeBackend       = "type.googleapis.com/ambit.waypoint.v1.Backend"
)

// Key names a resource.
type Key struct {
	Type string
	Name string
}

// Resource is one distributed resource. It is immutable once handed out.
type Resource struct {
	Key
	// Aliases are other names a client may subscribe to: /<ip> and
	// <network>/<ip> for each address of a workload or service.
	Aliases []string
	// Node restricts the resource to clients of that node; "" is for all.
	Node string
	// Waypoint restricts the resource to that waypoint's pods; the zero name does
	// not.
	Waypoint types.NamespacedName
	// Related are keys of resources that belong in the answer when a client
	// asks for this one on demand, for example the workloads of a service.
	Related func() []Key
	// Version changes exactly when Body does.
	Version string
	Body    proto.Message
}

// Delta is what a batch of changes did to the output. A key is in one of the
// two at most.
type Delta struct {
	Updated []*Resource
	Removed []Key
}
