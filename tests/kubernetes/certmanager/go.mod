// Pins cert-manager, of which a test takes the CRDs and nothing else: a module of its own, so that what it needs does not bind the mesh.
module github.com/ambit-mesh/ambit/tests/kubernetes/certmanager

go 1.26.0

require github.com/cert-manager/cert-manager v1.19.1
