package compile_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/controlplane/compile"
)

const localWorld = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {ambit-mesh.io/use-waypoint: wp}}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.2, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: version, namespace: shop}
spec: {clusterIP: 10.96.0.3, ports: [{name: http, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: cart}]
  rules: [{name: all, backendRefs: [{name: version, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: web}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
`

// TestTrafficIsLocal states which waypoint resources an edit changes, and that it
// changes no other.
func TestTrafficIsLocal(t *testing.T) {
	for name, tc := range map[string]struct{ edit, want string }{
		"a route": {`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: cart}]
  rules: [{backendRefs: [{name: cart, port: 80}]}]
`, "Frontend cart"},
		"a route moves": {`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: version}]
  rules: [{backendRefs: [{name: cart, port: 80}]}]
`, "Frontend cart,Frontend version"},
		"a backend's port": {`
apiVersion: v1
kind: Service
metadata: {name: version, namespace: shop}
spec: {clusterIP: 10.96.0.3, ports: [{name: http, port: 81}]}
`, "Address version,Frontend cart,Frontend version"},
		"a policy of a rule": {`
apiVersion: ambit-mesh.io/v1alpha1
kind: RetryPolicy
metadata: {name: again, namespace: shop}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: cart, sectionName: all}]
`, "Frontend cart"},
		"a policy of a service": {`
apiVersion: ambit-mesh.io/v1alpha1
kind: TimeoutPolicy
metadata: {name: soon, namespace: shop}
spec: {targetRefs: [{kind: Service, name: web}], request: 1s}
`, "Frontend web"},
		"a policy of a backend": {`
apiVersion: ambit-mesh.io/v1alpha1
kind: CircuitBreakerPolicy
metadata: {name: bounded, namespace: shop}
spec: {targetRefs: [{kind: Service, name: version}], maxRequests: 10}
`, "Backend version"},
		"a limit of a version": {`
apiVersion: ambit-mesh.io/v1alpha1
kind: RateLimitPolicy
metadata: {name: ten, namespace: shop}
spec: {targetRefs: [{kind: Service, name: version}], rules: [{requests: 10}]}
`, "Backend version"},
		"a refused limit of a version": {`
apiVersion: ambit-mesh.io/v1alpha1
kind: RateLimitPolicy
metadata: {name: ten, namespace: shop}
spec: {targetRefs: [{kind: Service, name: version}], rules: [{requests: 0}]}
`, "Frontend cart,Frontend version"},
		"a policy of a namespace": {`
apiVersion: ambit-mesh.io/v1alpha1
kind: TracingPolicy
metadata: {name: some, namespace: shop}
spec: {targetRefs: [{kind: Namespace}], sampling: {percent: 1}}
`, "Frontend cart,Frontend version,Frontend web"},
		"a policy of a namespace without services": {`
apiVersion: ambit-mesh.io/v1alpha1
kind: TracingPolicy
metadata: {name: some, namespace: bank}
spec: {targetRefs: [{kind: Namespace}], sampling: {percent: 1}}
`, ""},
		"a policy of nothing": {`
apiVersion: ambit-mesh.io/v1alpha1
kind: TimeoutPolicy
metadata: {name: soon, namespace: shop}
spec: {targetRefs: [{kind: Service, name: missing}], request: 1s}
`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCompiler(t)
			c.Apply(compile.Input{Upserts: objects(t, "world.yaml", []byte(localWorld))})
			var got []string
			for _, r := range c.Apply(compile.Input{Upserts: objects(t, "edit.yaml", []byte(tc.edit))}).Updated {
				_, host, _ := strings.Cut(r.Name, "/")
				svc, _, _ := strings.Cut(host, ".")
				got = append(got, short(r.Type)+" "+svc)
			}
			slices.Sort(got)
			if text := strings.Join(got, ","); text != tc.want {
				t.Errorf("changed %q, want %q", text, tc.want)
			}
		})
	}
}
