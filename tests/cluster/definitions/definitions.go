// Package definitions has CustomResourceDefinitions that tests give a cluster beside those of the Gateway API's module.
package definitions

// XTelemetryPolicy has the kind of GEP-4768, which is in the experimental channel from v1.7.0 on, without its schema: of a
// version that the mesh is not built with, that is the API server's business.
const XTelemetryPolicy = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: xtelemetrypolicies.gateway.networking.x-k8s.io}
spec:
  group: gateway.networking.x-k8s.io
  scope: Namespaced
  names: {kind: XTelemetryPolicy, listKind: XTelemetryPolicyList, plural: xtelemetrypolicies, singular: xtelemetrypolicy}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    subresources: {status: {}}
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`
