package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/tests/cluster/clustertest"
)

// racers is how many pods start on each node.
const racers = 50

// racer is a Job whose pods call a service from their first moment on, until there is an answer.
func racer(name, node, url string) string {
	return fmt.Sprintf(`
apiVersion: batch/v1
kind: Job
metadata: {name: %[1]s}
spec:
  parallelism: %[2]d
  completions: %[2]d
  backoffLimit: 0
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      nodeName: %[3]s
      restartPolicy: Never
      terminationGracePeriodSeconds: 1
      containers:
      - name: client
        image: ambit.test/echo:dev
        imagePullPolicy: Never
        command: [/usr/local/bin/client, %[4]q, --retry=5m, --timeout=5s, --interval=20ms]
---
`, name, racers, node, url)
}

// testRace starts a hundred enrolled pods while the agents and the ztunnels of both nodes are killed again and again. What
// they say to enrolled peers from their first moment on is never on the link in the open, though the peers would take it.
func testRace(t *testing.T) {
	c := clustertest.Open(t)
	out := c.Namespace("open")
	c.Apply(out, echoApp("stranger", c.Nodes[0]))
	c.Ready(out, "deploy/stranger")
	e := enrol(t, c, "race", []string{"east@" + c.Nodes[0], "west@" + c.Nodes[1]})
	wire := c.Capture(c.Nodes[1], clustertest.Uplink, secret, open)
	// The peers are PERMISSIVE, and the capture sees what is said in the open.
	enrolled{c, t, out}.eventually("stranger", "http://west."+e.ns+"/?say="+open, "Hostname=west-")
	if r := wire.Report(); r.Found[open] == 0 {
		t.Fatalf("the capture does not see what is said in the open: %+v", r)
	}

	c.Apply(e.ns, racer("from-east", c.Nodes[0], "http://west/?say="+secret)+racer("from-west", c.Nodes[1], "http://east/?say="+secret))
	kills, mesh, missed, next := 0, 0, 0, 0
	done := func() int {
		n := 0
		for _, s := range strings.Fields(c.Must("-n", e.ns, "get", "jobs", "-o", "jsonpath={.items[*].status.succeeded}")) {
			i, err := strconv.Atoi(s)
			if err != nil {
				t.Fatal(err)
			}
			n += i
		}
		return n
	}
	c.Until("all have had their answer", 6*time.Minute, func() error {
		n := done()
		r := wire.Report()
		mesh, missed = mesh+r.MeshBytes, missed+r.Dropped
		if r.Found[secret] != 0 {
			t.Fatalf("after %d kills, %d of %d pods done, it is on the link: %v", kills, n, 2*racers, r.Excerpts)
		}
		if failed := c.Must("-n", e.ns, "get", "jobs", "-o", "jsonpath={.items[*].status.failed}"); strings.Trim(failed, "0 ") != "" {
			t.Fatalf("pods have failed: %s", failed)
		}
		if n == 2*racers {
			return nil
		}
		if n >= next {
			kill(t, c, &kills)
			next = n + 15 // pods start in between
		}
		return fmt.Errorf("%d of %d have, after %d kills", n, 2*racers, kills)
	})
	if kills < 3 || mesh == 0 {
		t.Errorf("only %d kills, %d mesh bytes: nothing was put to the test", kills, mesh)
	}
	events := c.Must("-n", e.ns, "get", "events", "--field-selector=reason=FailedCreatePodSandBox", "-o", "jsonpath={range .items[*]}{.message}{\"\\n\"}{end}")
	t.Logf("%d kills, %d mesh bytes, %d frames missed; %d events of pods that were held back", kills, mesh, missed, strings.Count(events, "is not started outside the mesh"))
}

// kill kills agents and ztunnels in turn, and waits until they are back.
func kill(t *testing.T, c *clustertest.Cluster, kills *int) {
	t.Helper()
	which := [][]string{{"nodeagent"}, {"ztunnel"}, {"nodeagent", "ztunnel"}}[*kills%3]
	*kills++
	for _, w := range which {
		c.Must("-n", system, "delete", "pods", "-l", "app.kubernetes.io/name=ambit-"+w, "--force", "--grace-period=0")
	}
	for _, w := range which {
		c.Ready(system, "ds/ambit-"+w)
	}
}
