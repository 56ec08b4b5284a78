package compile_test

import (
	"errors"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/internal/identity"
)

const waypointPods = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {ambit-mesh.io/use-waypoint: wp}}
---
apiVersion: v1
kind: Pod
metadata: {name: wp-1, namespace: shop, uid: u1, labels: {gateway.networking.k8s.io/gateway-name: wp}}
spec: {nodeName: n1, serviceAccountName: wp, containers: [{name: c}]}
status: {phase: Running, podIP: 10.0.1.4}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, uid: u2}
spec: {nodeName: n1, serviceAccountName: web, containers: [{name: c}]}
status: {phase: Running, podIP: 10.0.1.5}
`

func compiled(t *testing.T, manifests string) *compile.Compiler {
	t.Helper()
	c, err := compile.New(compile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c.Apply(compile.Input{Upserts: objects(t, "mesh.yaml", []byte(manifests))})
	return c
}

// A waypoint asks for itself, and only for itself; nobody else is given its
// identity.
func TestWhoGetsAWaypointsIdentity(t *testing.T) {
	own := identity.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "wp"}
	web := identity.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "web"}
	claim := compile.PodClaim{Node: "n1", Name: types.NamespacedName{Namespace: "shop", Name: "wp-1"}, UID: "u1", ServiceAccount: "wp", Gateway: "wp"}
	c := compiled(t, waypointPods)
	if err := c.IsPod(claim, own); err != nil {
		t.Error(err)
	}
	if err := c.NodeRuns("n1", own); !errors.Is(err, compile.ErrNotRunning) || !strings.Contains(err.Error(), "is a waypoint, which asks for itself") {
		t.Errorf("the node is given the waypoint's identity: %v", err)
	}
	if err := c.NodeRuns("n1", web); err != nil {
		t.Error(err)
	}
	for why, change := range map[string]func(*compile.PodClaim, *identity.ID){
		"its own identity is":       func(_ *compile.PodClaim, id *identity.ID) { *id = web },
		"there is no such pod":      func(p *compile.PodClaim, _ *identity.ID) { p.Name.Name = "wp-2" },
		"another uid now":           func(p *compile.PodClaim, _ *identity.ID) { p.UID = "u9" },
		`on node "n1" and not`:      func(p *compile.PodClaim, _ *identity.ID) { p.Node = "n2" },
		"it is not of waypoint":     func(p *compile.PodClaim, _ *identity.ID) { p.Gateway = "other" },
		"runs as service account w": func(p *compile.PodClaim, id *identity.ID) { p.ServiceAccount, *id = "web", web },
		"it is not of waypoint wp": func(p *compile.PodClaim, id *identity.ID) {
			p.Name.Name, p.UID, p.ServiceAccount, *id = "web", "u2", "web", web
		},
	} {
		p, id := claim, own
		change(&p, &id)
		if err := c.IsPod(p, id); !errors.Is(err, compile.ErrNotRunning) || !strings.Contains(err.Error(), why) {
			t.Errorf("%v; want one that says %q", err, why)
		}
	}
	c.Apply(compile.Input{Deletes: []graph.Key{{Kind: "Pod", Namespace: "shop", Name: "wp-1"}}})
	if err := c.IsPod(claim, own); !errors.Is(err, compile.ErrNotRunning) {
		t.Errorf("a pod that is gone: %v", err)
	}
}

// A namespace's label alone makes a waypoint, and only one of that namespace.
func TestImpliedWaypoint(t *testing.T) {
	c := compiled(t, waypointPods)
	all := c.Waypoints()
	if len(all) != 1 || !all[0].Implied || all[0].Gateway.Namespace != "shop" || all[0].Gateway.Name != "wp" {
		t.Fatalf("waypoints %+v", all)
	}
	c.Apply(compile.Input{Upserts: objects(t, "ns.yaml", []byte(
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {ambit-mesh.io/use-waypoint: wp, ambit-mesh.io/use-waypoint-namespace: infra}}"))})
	if all := c.Waypoints(); len(all) != 0 {
		t.Fatalf("a label implied another namespace's waypoint: %+v", all)
	}
}
