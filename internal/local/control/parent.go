package control

import (
	"fmt"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Route is a route in Status that a parent does not accept.
type Route struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Parent    string `json:"parent"`
	// Reason is that of the condition Accepted.
	Reason string `json:"reason"`
}

// ParentName names the parent of a route, or the target of a policy, of a
// namespace: Service shop/cart:80, HTTPRoute shop/cart#rule.
func ParentName(namespace string, ref gatewayv1.ParentReference) string {
	kind := "Gateway"
	if ref.Kind != nil {
		kind = string(*ref.Kind)
	}
	if ref.Namespace != nil {
		namespace = string(*ref.Namespace)
	}
	name := kind + " " + namespace + "/" + string(ref.Name)
	if kind == "Namespace" {
		name = kind + " " + string(ref.Name)
	}
	if ref.Port != nil {
		name += fmt.Sprintf(":%d", *ref.Port)
	}
	if ref.SectionName != nil {
		name += "#" + string(*ref.SectionName)
	}
	return name
}
