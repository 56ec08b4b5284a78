package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// KindExternalService is the kind of ExternalService.
const KindExternalService = "ExternalService"

// TargetExternalService is the kind by which policies name an ExternalService; its
// group is GroupName.
const TargetExternalService gatewayv1.Kind = KindExternalService

// ReasonHostTaken says that an older ExternalService, or the cluster, has a host.
const ReasonHostTaken = "HostTaken"

// ExternalService makes hosts outside of the cluster known to the mesh, so that
// policy can name them and workloads whose outbound mode is registry-only can reach
// them.
//
// Hosts that are resolved by the mesh get stable virtual addresses.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=ambit,shortName=es
// +kubebuilder:printcolumn:name="Hosts",type=string,JSONPath=`.spec.hosts`
// +kubebuilder:printcolumn:name="Resolution",type=string,JSONPath=`.spec.resolution`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ExternalService struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is wanted.
	// +required
	Spec ExternalServiceSpec `json:"spec"`

	// Status is what became of it.
	// +optional
	Status ExternalServiceStatus `json:"status,omitempty"`
}

// ExternalServiceList is a list of ExternalServices.
//
// +kubebuilder:object:root=true
type ExternalServiceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ExternalService `json:"items"`
}

// ExternalServiceSpec is what an ExternalService wants.
//
// +kubebuilder:validation:XValidation:rule="self.resolution != 'Static' || has(self.endpoints)",message="Static resolution needs endpoints",fieldPath=".endpoints",reason=FieldValueRequired
// +kubebuilder:validation:XValidation:rule="self.resolution == 'Static' || !has(self.endpoints)",message="only Static resolution has endpoints",fieldPath=".endpoints",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule="self.resolution != 'None' || has(self.addresses)",message="resolution None needs the addresses that clients connect to",fieldPath=".addresses",reason=FieldValueRequired
// +kubebuilder:validation:XValidation:rule="self.resolution == 'None' || !has(self.addresses) || self.addresses.all(a, !a.contains('/'))",message="blocks of addresses need resolution None",fieldPath=".addresses",reason=FieldValueForbidden
type ExternalServiceSpec struct {
	// Hosts are DNS names. One that begins with "*." stands for all names below
	// the rest.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Hosts []ExternalHost `json:"hosts"`

	// Addresses are those that clients connect to, beside the virtual ones that the
	// mesh gives each host. With resolution None they may be blocks, such as
	// 192.0.2.0/24.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=50
	// +kubebuilder:validation:XValidation:rule="self.all(a, isIP(a) || isCIDR(a))",message="an address is an IP address or a block such as 192.0.2.0/24"
	Addresses []string `json:"addresses,omitempty"`

	// Ports of the hosts.
	// +required
	// +listType=map
	// +listMapKey=port
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule="self.all(p, self.exists_one(q, q.name == p.name))",message="port names must be unique"
	Ports []ExternalPort `json:"ports"`

	// Resolution says how an address of a host is found. DNS: by its name, when a
	// connection is opened. Static: from endpoints. None: connections go where the
	// client wants.
	// +optional
	// +kubebuilder:default=DNS
	Resolution ExternalResolution `json:"resolution,omitempty"`

	// Endpoints serve every host.
	// +optional
	// +listType=map
	// +listMapKey=address
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=128
	Endpoints []ExternalEndpoint `json:"endpoints,omitempty"`
}

// ExternalHost is a DNS name, or a wildcard.
//
// +kubebuilder:validation:MinLength=3
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:Pattern=`^(\*\.)?([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`
type ExternalHost string

// ExternalPort is a port of the hosts.
type ExternalPort struct {
	// Name of the port.
	// +required
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name"`

	// Port that clients connect to.
	// +required
	Port PortNumber `json:"port"`

	// TargetPort is the port of the host or endpoint; the same one without it.
	// +optional
	TargetPort *PortNumber `json:"targetPort,omitempty"`

	// Protocol that clients speak.
	// +optional
	// +kubebuilder:default=TCP
	Protocol ExternalProtocol `json:"protocol,omitempty"`
}

// ExternalProtocol is what clients speak.
//
// +kubebuilder:validation:Enum=TCP;TLS;HTTP;HTTP2;GRPC
type ExternalProtocol string

// ExternalResolution says how an address of a host is found.
//
// +kubebuilder:validation:Enum=DNS;Static;None
type ExternalResolution string

// Ways to find an address.
const (
	ResolutionDNS    ExternalResolution = "DNS"
	ResolutionStatic ExternalResolution = "Static"
	ResolutionNone   ExternalResolution = "None"
)

// ExternalEndpoint is a place that serves the hosts.
type ExternalEndpoint struct {
	// Address of the endpoint.
	// +required
	// +kubebuilder:validation:MaxLength=45
	// +kubebuilder:validation:XValidation:rule="isIP(self)",message="an endpoint is an IP address"
	Address string `json:"address"`

	// Weight is its share of the connections beside the other endpoints.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Weight *int32 `json:"weight,omitempty"`

	// Region and Zone are where it is.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Region string `json:"region,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Zone string `json:"zone,omitempty"`
}

// ExternalServiceStatus is what became of an ExternalService.
type ExternalServiceStatus struct {
	// Conditions: Accepted, and WaypointBound where a waypoint is asked for.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Addresses are the virtual ones of each host.
	// +optional
	// +listType=map
	// +listMapKey=host
	// +kubebuilder:validation:MaxItems=32
	Addresses []ExternalAddresses `json:"addresses,omitempty"`
}

// ExternalAddresses are the virtual addresses of a host.
type ExternalAddresses struct {
	// Host is one of spec.hosts.
	Host ExternalHost `json:"host"`
	// Addresses that the mesh answers for it.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=2
	Addresses []string `json:"addresses"`
}
