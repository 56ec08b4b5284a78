package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// ControllerName is the controllerName of every ancestor that the mesh writes
// into the status of a policy.
const ControllerName gatewayv1.GatewayController = "ambit-mesh.io/controller"

// Kinds that a policy may target. All are of the core group, written "".
const (
	TargetPod       gatewayv1.Kind = "Pod"
	TargetService   gatewayv1.Kind = "Service"
	TargetNamespace gatewayv1.Kind = "Namespace"
)

// Conditions of a policy, on the policy as a whole and on each ancestor. The
// other reasons are those of GEP-713: Accepted, Invalid, TargetNotFound,
// Conflicted.
const (
	// ConditionAccepted says whether the policy is enforced as written.
	ConditionAccepted = string(gatewayv1.PolicyConditionAccepted)
	// ReasonWaypointRequired says that the policy, or the route, can only be
	// carried out by a waypoint and that no waypoint does.
	ReasonWaypointRequired = "WaypointRequired"
	// ReasonConflicted says that an older policy has the very same target and
	// decides or, of a route, that routes of another kind decide.
	ReasonConflicted = string(gatewayv1.PolicyReasonConflicted)
	// ReasonUnsupportedParent says that the parent of a route is a Service whose
	// traffic cannot be told from other traffic: headless, or an ExternalName.
	ReasonUnsupportedParent = "UnsupportedParent"
	// ReasonUnsupportedRoute says that a waypoint cannot carry out routes of the
	// kind.
	ReasonUnsupportedRoute = "UnsupportedRoute"
	// ReasonBackendNotFound says that a Service which the policy refers to does
	// not exist, or has no such port.
	ReasonBackendNotFound = "BackendNotFound"
	// ReasonFilterNotFound says that a policy which a route names as a filter
	// does not exist.
	ReasonFilterNotFound = "FilterNotFound"
	// ReasonFilterInvalid says that a policy which a route names as a filter is
	// refused as Invalid.
	ReasonFilterInvalid = "FilterInvalid"
)

// PolicyStatus is the status of a policy.
type PolicyStatus struct {
	// Conditions of the policy as a whole. Accepted is True when the policy is
	// enforced as written on each of its targets.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Ancestors has an entry for each target: the Service, or the Namespace
	// whose workloads the policy reaches.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Ancestors []gatewayv1.PolicyAncestorStatus `json:"ancestors,omitempty"`
}

// PortNumber is a TCP port.
//
// +kubebuilder:validation:Minimum=1
// +kubebuilder:validation:Maximum=65535
type PortNumber int32
