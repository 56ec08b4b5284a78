package compile_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

const (
	labelled = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {ambit-mesh.io/use-waypoint: wp}}
`
	boundNamespace = labelled + `
status: {conditions: [{type: ambit-mesh.io/WaypointBound, status: "True", reason: Bound, message: bound to waypoint wp}]}
`
	cart = `
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1], selector: {app: cart}, ports: [{name: http, port: 80}]}
`
	madeService = `
apiVersion: v1
kind: Service
metadata: {name: wp, namespace: shop, labels: {gateway.networking.k8s.io/gateway-name: wp}}
spec: {clusterIP: 10.96.0.2, clusterIPs: [10.96.0.2], selector: {gateway.networking.k8s.io/gateway-name: wp}, ports: [{name: hbone, port: 15008}]}
`
	madePod = `
apiVersion: v1
kind: Pod
metadata: {name: wp-1, namespace: shop, uid: u1, labels: {gateway.networking.k8s.io/gateway-name: wp}}
spec: {nodeName: n1, serviceAccountName: wp, containers: [{name: c}]}
status: {phase: Running, podIP: 10.0.1.4, conditions: [{type: Ready, status: "READY"}]}
`
	writtenGateway = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: shop}
spec: {gatewayClassName: ambit-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
`
)

func podReady(ready string) string { return strings.ReplaceAll(madePod, "READY", ready) }

// bindings is a compiler that is given manifests piece by piece.
type bindings struct {
	*testing.T
	c *compile.Compiler
}

func newBindings(t *testing.T, o compile.Options) *bindings {
	c, err := compile.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return &bindings{t, c}
}

func (b *bindings) apply(manifests ...string) compile.Result {
	return b.c.Apply(compile.Input{Upserts: objects(b.T, "m.yaml", []byte(strings.Join(manifests, "\n---\n")))})
}

func (b *bindings) remove(kind, name string) {
	k := graph.Key{Kind: kind, Namespace: "shop", Name: name}
	if kind == "Gateway" {
		k.Group = "gateway.networking.k8s.io"
	}
	b.c.Apply(compile.Input{Deletes: []graph.Key{k}})
}

// want checks what clients are told of the Service, and what its status says.
func (b *bindings) want(what string, bound, announced bool, reason string) {
	b.Helper()
	r, ok := b.c.Lookup(compile.Key{Type: compile.TypeAddress, Name: "shop/cart.shop.svc.cluster.local"})
	if !ok {
		b.Fatal("no Service")
	}
	s := r.Body.(*workload.Address).GetService()
	var o workload.WaypointOptions
	for _, e := range s.GetExtensions() {
		if e.GetName() == workload.WaypointExtension {
			if err := e.GetConfig().UnmarshalTo(&o); err != nil {
				b.Fatal(err)
			}
		}
	}
	if got := s.GetWaypoint() != nil; got != bound {
		b.Errorf("%s: bound %v, want %v", what, got, bound)
	}
	if got := o.GetAnnounced().GetHostname().GetHostname() == "wp.shop.svc.cluster.local"; got != announced {
		b.Errorf("%s: announced %v, want %v", what, got, announced)
	}
	st, _ := b.c.StatusOf(graph.ServiceKey(types.NamespacedName{Namespace: "shop", Name: "cart"}))
	cond := meta.FindStatusCondition(st.Policy.Conditions, compile.ConditionWaypointBound)
	got := ""
	if cond != nil {
		got = cond.Reason
	}
	if got != reason {
		b.Errorf("%s: reason %q, want %q", what, got, reason)
	}
	if _, told := b.c.Lookup(compile.Key{Type: compile.TypeFrontend, Name: "shop/cart.shop.svc.cluster.local"}); told != (reason != "") {
		b.Errorf("%s: the waypoint is told of the Service: %v", what, told)
	}
}

// A waypoint that a label alone asks for is bound when it is ready for the first
// time, and stays bound, whatever becomes of it and of the control plane.
func TestLabelBindsAWaypointThatHasBeenReady(t *testing.T) {
	b := newBindings(t, compile.Options{})
	b.apply(labelled, cart)
	b.want("label only", false, true, "WaitingForWaypoint")
	b.apply(madeService, podReady("False"))
	b.want("not ready", false, true, "WaitingForWaypoint")
	if r := b.apply(podReady("True")); !r.BoundChanged {
		t.Error("what is to be remembered has not changed")
	}
	b.want("ready", true, false, "Bound")
	if r := b.apply(podReady("False")); r.BoundChanged {
		t.Error("what is to be remembered has changed")
	}
	b.want("not ready any more", true, false, "WaypointNotReady")
	b.remove("Pod", "wp-1")
	b.remove("Service", "wp")
	b.want("gone", true, false, "WaypointNotReady")

	next := newBindings(t, compile.Options{})
	next.c.Apply(compile.Input{
		Upserts: objects(t, "m.yaml", []byte(labelled+"\n---\n"+cart)), RestoredWaypoints: b.c.BoundWaypoints(),
	})
	next.want("after a restart", true, false, "WaypointNotReady")
	next.apply(strings.ReplaceAll(labelled, "use-waypoint: wp", "use-waypoint: none"))
	next.want("without the label", false, false, "")
	if left := next.c.BoundWaypoints(); len(left) != 0 {
		t.Errorf("without the label %v are remembered", left)
	}
	next.apply(labelled)
	next.want("with the label again", false, true, "WaitingForWaypoint")
}

// Replicas agree by the Namespace's condition, and bind when it is there.
func TestConditionBinds(t *testing.T) {
	b := newBindings(t, compile.Options{CapturedByCondition: true})
	condition := func() string {
		st, _ := b.c.StatusOf(graph.NamespaceKey("shop"))
		for _, c := range st.Policy.Conditions {
			return c.Type + " " + string(c.Status) + " " + c.Message
		}
		return ""
	}
	b.apply(labelled, cart, madeService, podReady("False"))
	if got := condition(); got != "" {
		t.Errorf("before it is ready: %s", got)
	}
	r := b.apply(podReady("True"))
	b.want("ready, and nobody has said so", false, true, "WaitingForWaypoint")
	if got, want := condition(), "ambit-mesh.io/WaypointBound True bound to waypoint wp"; got != want {
		t.Errorf("condition %q, want %q", got, want)
	}
	told := false
	for _, k := range r.Touched {
		told = told || k == graph.NamespaceKey("shop")
	}
	if !told {
		t.Errorf("the Namespace is not among those whose status is another: %v", r.Touched)
	}
	b.apply(boundNamespace)
	b.want("said", true, false, "Bound")
	b.remove("Pod", "wp-1")
	b.want("gone", true, false, "WaypointNotReady")
	if condition() == "" {
		t.Error("the condition is taken back")
	}
	b.apply(strings.ReplaceAll(boundNamespace, "use-waypoint: wp", "use-waypoint: wp2"))
	b.want("another name", false, false, "WaitingForWaypoint")
	if got := condition(); got != "" {
		t.Errorf("another name: %s", got)
	}
}

// A Gateway that is written binds at once, and leaves nothing open when it goes.
func TestWrittenGatewayBindsAtOnce(t *testing.T) {
	b := newBindings(t, compile.Options{})
	b.apply(labelled, cart, writtenGateway)
	b.want("written", true, false, "WaypointNotReady")
	b.remove("Gateway", "wp")
	b.want("implied now", true, false, "WaypointNotReady")
}

// What only the waypoint can enforce is never left out, not even before it is
// there for the first time.
func TestWaitingStaysClosed(t *testing.T) {
	for name, manifest := range map[string]string{
		"policy about requests": `
apiVersion: ambit-mesh.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: cart}]
  action: DENY
  enforcementLevel: Application
  rules: [{name: r, application: {methods: [DELETE]}}]
`,
		"tokens": `
apiVersion: ambit-mesh.io/v1alpha1
kind: JWTAuthentication
metadata: {name: p, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: cart}]
  required: true
  providers: [{name: a, issuer: me, jwks: {inline: "{}"}}]
`,
		"external authorization of a namespace": `
apiVersion: ambit-mesh.io/v1alpha1
kind: ExternalAuthorizationPolicy
metadata: {name: p, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: cart}]
  protocol: GRPC
  backendRef: {name: cart, port: 80}
`,
		"a route's filter": `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: p, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: cart}]
  rules: [{filters: [{type: ExternalAuth, externalAuth: {protocol: GRPC, backendRef: {name: cart, port: 80}}}], backendRefs: [{name: cart, port: 80}]}]
`,
		"annotation": strings.Replace(cart, "namespace: shop", `namespace: shop, annotations: {ambit-mesh.io/require-waypoint: "true"}`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBindings(t, compile.Options{})
			b.apply(labelled, cart)
			b.want("nothing yet", false, true, "WaitingForWaypoint")
			b.apply(manifest)
			b.want("closed", true, false, "WaypointNotReady")
			b.apply(madeService, podReady("True"))
			b.want("ready", true, false, "Bound")
		})
	}
}

// With the switch, and only with it, the twins of labels are the mesh's own.
func TestIstioLabels(t *testing.T) {
	namespace := strings.ReplaceAll(labelled, "ambit-mesh.io/use-waypoint", "istio.io/use-waypoint")
	gateway := strings.ReplaceAll(writtenGateway, "ambit-waypoint", "istio-waypoint")
	b := newBindings(t, compile.Options{})
	b.apply(namespace, cart, gateway)
	b.want("without the switch", false, false, "")
	b = newBindings(t, compile.Options{IstioLabels: true})
	b.apply(namespace, cart, gateway)
	b.want("with it", true, false, "WaypointNotReady")
	b.apply(madeService, podReady("True"))
	b.want("ready", true, false, "Bound")
}
