package compile

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// Finding is something that a person should put right. The mesh goes on without
// the part that is wrong, never by granting more than was asked for.
type Finding struct {
	Object graph.Key `json:"object"`
	// Origin is the object's "file:line", or "".
	Origin string `json:"origin,omitempty"`
	// Field is the path of the offending field, or "".
	Field string `json:"field,omitempty"`
	// Message says what is wrong, what it means, and what to do.
	Message string `json:"message"`
}

// Status is what a policy's status should say.
type Status struct {
	Object     graph.Key          `json:"object"`
	Origin     string             `json:"origin,omitempty"`
	Generation int64              `json:"generation"`
	Conditions []metav1.Condition `json:"conditions"`
}
