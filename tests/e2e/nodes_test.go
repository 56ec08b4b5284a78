package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/tests/cluster/clustertest"
)

// movable has two pods that the scheduler places, of which one at a time may be evicted. They end as an application should:
// they go on for a moment after they were told.
const movable = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: movable}
spec:
  replicas: 2
  selector: {matchLabels: {app: movable}}
  template:
    metadata: {labels: {app: movable}}
    spec:
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: movable}}}
      terminationGracePeriodSeconds: 10
      containers:
      - name: echo
        image: ambit.test/echo:dev
        imagePullPolicy: Never
        args: [--port=8080]
        lifecycle: {preStop: {sleep: {seconds: 1}}}
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: movable}
spec:
  minAvailable: 1
  selector: {matchLabels: {app: movable}}
---
apiVersion: v1
kind: Service
metadata: {name: movable}
spec:
  selector: {app: movable}
  ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}]
`

// testNodes drains a node under load, takes its power away, and has it back.
func testNodes(t *testing.T) {
	c := clustertest.Open(t)
	stays, goes := c.Nodes[0], c.Nodes[1]
	e := enrol(t, c, "nodes", []string{"near@" + stays, "local@" + stays, "far@" + goes})
	c.Apply(e.ns, movable)
	c.Ready(e.ns, "deploy/movable")
	e.captured("-l", "app=movable")
	e.eventually("near", "http://movable/", "Hostname=movable-")
	e.eventually("near", "http://local/", "Hostname=local-")
	t.Cleanup(func() {
		up(t, c)
		c2 := exec.Command(os.Getenv(clustertest.Program), "kubectl", "uncordon", goes) //nolint:noctx // short
		if out, err := c2.CombinedOutput(); err != nil {
			t.Errorf("uncordon %s: %v\n%s", goes, err, out)
		}
	})

	t.Log("drain")
	load := c.Load(e.ns, "deploy/near", "http://movable/", "--interval=20ms")
	c.Must("drain", goes, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=150s")
	c.Ready(e.ns, "deploy/movable")
	load.Stop()
	if at := c.Must("-n", e.ns, "get", "pods", "-l", "app=movable", "-o", "jsonpath={.items[*].spec.nodeName}"); strings.Contains(at, goes) {
		t.Errorf("after the drain there are pods on %s", at)
	}

	t.Log("the power fails")
	load = c.Load(e.ns, "deploy/near", "http://local/", "--interval=20ms")
	if out, err := exec.CommandContext(t.Context(), os.Getenv(clustertest.Program), "down", goes).CombinedOutput(); err != nil {
		t.Fatalf("down: %v\n%s", err, out)
	}
	e.refused("near", "http://far/")
	up(t, c)
	load.Stop()
	c.Must("uncordon", goes)

	t.Log("it is a part of the mesh again")
	c.Ready(system, "ds/ambit-nodeagent", "ds/ambit-ztunnel")
	wire := c.Capture(goes, clustertest.Uplink, secret)
	e.eventually("near", "http://far/?say="+secret, "Hostname=far-")
	c.Apply(e.ns, echoApp("fresh", goes))
	c.Ready(e.ns, "deploy/fresh")
	e.captured("-l", "app=fresh")
	e.eventually("near", "http://fresh/?say="+secret, "Hostname=fresh-")
	e.eventually("fresh", "http://near/?say="+secret, "Hostname=near-")
	sealed(t, wire)
}

// up brings back nodes that are down.
func up(t *testing.T, c *clustertest.Cluster) {
	t.Helper()
	cmd := exec.Command(os.Getenv(clustertest.Program), "up", "--images=false") //nolint:noctx // its own deadlines bound it
	cmd.Dir = c.Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("up: %w\n%s", err, out))
	}
}
