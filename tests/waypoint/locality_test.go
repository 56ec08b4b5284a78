package waypoint_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// placed is a pod of the echo server on a node.
func placed(name, app, node string) string {
	self, _ := os.Executable()
	return fmt.Sprintf(`
---
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: app, labels: {app: %[2]s}}
spec:
  nodeName: %[3]s
  serviceAccountName: client
  containers:
  - name: main
    command: [%[4]s, echo]
    env: [{name: %[5]s, value: "1"}, {name: VERSION, value: %[3]s}]
`, name, app, node, self, roleEnv)
}

// preferring is a Service that prefers a place.
func preferring(name, app, distribution string) string {
	s := strings.ReplaceAll(service(name, ""), "app: echo", "app: "+app)
	if distribution != "" {
		s = strings.Replace(s, "spec:\n", "spec:\n  trafficDistribution: "+distribution+"\n", 1)
	}
	return s
}

// The waypoint sends requests to the endpoints that are nearest to it as long as
// one of them is well, and to the others from then on.
func TestLocality(t *testing.T) {
	m := use(t)
	const zones = `
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/region: r, topology.kubernetes.io/zone: a}}
---
apiVersion: v1
kind: Node
metadata: {name: n2, labels: {topology.kubernetes.io/region: r, topology.kubernetes.io/zone: b}}
`
	services := zones + preferring("zoned", "placed", "PreferSameZone") + preferring("noded", "placed", "PreferSameNode") + preferring("anywhere", "placed", "") +
		policy("HealthCheckPolicy", "zoned", `
targetRefs: [{kind: Service, name: zoned}, {kind: Service, name: noded}, {kind: Service, name: anywhere}]
type: HTTP
http: {path: /healthz}
interval: 1s
timeout: 1s
unhealthyThreshold: 2
healthyThreshold: 1
`) + policy("LoadBalancingPolicy", "zoned", `
targetRefs: [{kind: Service, name: zoned}, {kind: Service, name: noded}, {kind: Service, name: anywhere}]
algorithm: RoundRobin
`)
	// The client is elsewhere than the waypoint at times: it is the waypoint that counts.
	near := "n" + strings.Split(strings.TrimPrefix(m.v4("app", "wp-")[0], "10.244."), ".")[0]
	far := map[string]string{"n1": "n2", "n2": "n1"}[near]
	m.apply(services + placed("placed-near", "placed", near) + placed("placed-near-too", "placed", near) + placed("placed-far", "placed", far))
	ask := func(name string) request { return request{URL: "http://" + name + "/", Times: 30} }
	m.until("all three answer", ask("anywhere"), func(r response) bool { return len(r.Pods) == 3 && r.Statuses[200] == 30 })
	first, second, other := m.v4("app", "placed-near-too")[0], "", m.v4("app", "placed-far")[0]
	second = without(m.v4("app", "placed-near"), first)[0]
	for _, name := range []string{"zoned", "noded"} {
		m.until("the near ones of "+name+" are preferred", ask(name), spread(first, second))
	}
	m.tell([]string{first}, "/ill?status=500", "")
	for _, name := range []string{"zoned", "noded"} {
		m.until("one near one of "+name+" is left", ask(name), spread(second))
	}
	m.tell([]string{second}, "/ill?status=500", "")
	for _, name := range []string{"zoned", "noded"} {
		m.until("no near one of "+name+" is left", ask(name), spread(other))
	}
	m.tell([]string{first, second}, "/ill?status=0", "")
	for _, name := range []string{"zoned", "noded"} {
		m.until("the near ones of "+name+" are back", ask(name), spread(first, second))
	}
	// Those that are taken away are no different.
	m.apply(services + placed("placed-far", "placed", far))
	m.until("the far one is alone", ask("zoned"), spread(other))
}

// An endpoint that is new gets a part of its share at first.
func TestSlowStart(t *testing.T) {
	m := use(t)
	self, _ := os.Executable()
	state := func(replicas int) string {
		var b strings.Builder
		deploy(&b, self, replicas, "app", "warming", "warming", "v1", "client", "echo")
		turns := "algorithm: RoundRobin\n"
		return b.String() + preferring("warming", "warming", "") + preferring("hot", "warming", "") +
			policy("LoadBalancingPolicy", "warming", "targetRefs: [{kind: Service, name: warming}]\nslowStart: 1h\n"+turns) +
			policy("LoadBalancingPolicy", "hot", "targetRefs: [{kind: Service, name: hot}]\n"+turns)
	}
	m.apply(state(2))
	ask := func(name string) request { return request{URL: "http://" + name + "/", Times: 400} }
	even := func(n int) func(response) bool {
		return func(r response) bool {
			for _, k := range r.Pods {
				if k < 400/n-2 {
					return false
				}
			}
			return len(r.Pods) == n && r.Statuses[200] == 400
		}
	}
	var old response
	// The waypoint looks at the endpoints of a service from the first request on, and
	// takes those that are there then for old.
	for _, name := range []string{"hot", "warming"} {
		old = m.until("those of "+name+" that were there first share evenly", ask(name), even(2))
	}
	m.apply(state(3))
	m.until("without a policy the new one has its share at once", ask("hot"), even(3))
	got := m.ask(ask("warming"))[0]
	for pod, n := range got.Pods {
		if was := old.Pods[pod] > 0; was && n < 150 || !was && (n == 0 || n > 50) {
			t.Errorf("pod %s, there before: %v, got %d of 400", pod, was, n)
		}
	}
	if len(got.Pods) != 3 || got.Statuses[200] != 400 {
		t.Errorf("%v %v", got.Pods, got.Statuses)
	}
}
