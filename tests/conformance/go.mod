// The Gateway API's conformance suite, in a module of its own: its version and those of what it needs do not bind the mesh.
module github.com/ambit-mesh/ambit/tests/conformance

go 1.26.0

require (
	sigs.k8s.io/gateway-api v1.6.3
	sigs.k8s.io/gateway-api/conformance v1.6.3
)
