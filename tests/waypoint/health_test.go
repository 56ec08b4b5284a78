package waypoint_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
)

// tell sends a GET to each pod's own address, and another one when the test is over.
func (m *mesh) tell(pods []string, now, after string) {
	m.t.Helper()
	for _, pod := range pods {
		if after != "" {
			m.t.Cleanup(func() {
				out, err := m.command(context.Background(), "exec", "deploy/client", "-n", "app", "--", "/usr/bin/env", roleEnv+"=1", os.Args[0], "get", "http://"+pod+":8080"+after).CombinedOutput()
				if err != nil {
					m.t.Errorf("pod %s, %s: %v\n%s", pod, after, err, out)
				}
			})
		}
		if r := m.get("http://" + pod + ":8080" + now); r.Status != 200 {
			m.t.Fatalf("pod %s, %s: %d %s", pod, now, r.Status, r.Error)
		}
	}
}

// v4 are the addresses of the pods that requests say they came to.
func (m *mesh) v4(namespace, prefix string) (out []string) {
	m.t.Helper()
	for _, a := range m.addresses(namespace, prefix) {
		if !strings.Contains(a, ":") {
			out = append(out, a)
		}
	}
	return out
}

// spread is that so many requests were all answered, by exactly these pods.
func spread(pods ...string) func(response) bool {
	return func(r response) bool {
		for _, p := range pods {
			if r.Pods[p] == 0 {
				return false
			}
		}
		return len(r.Pods) == len(pods) && len(r.Statuses) == 1 && r.Statuses[200] > 0
	}
}

// without leaves one out.
func without(list []string, one string) (out []string) {
	for _, s := range list {
		if s != one {
			out = append(out, s)
		}
	}
	return out
}

// An endpoint is asked by grpc.health.v1 about the whole server or one service of
// it, and gets no requests while the answer is not SERVING, though it would answer
// them.
func TestHealthCheckGRPC(t *testing.T) {
	m := use(t)
	check := func(name, grpc string) string {
		return many(name) + policy("HealthCheckPolicy", name, fmt.Sprintf(`
targetRefs: [{kind: Service, name: %s}]
type: GRPC
%s
interval: 1s
timeout: 1s
unhealthyThreshold: 2
healthyThreshold: 1
`, name, grpc))
	}
	m.apply(check("checked-rpc", "grpc: {service: "+testService+"}") + check("checked-whole", "grpc: {}") + check("checked-other", "grpc: {service: not.There}"))
	pods := m.v4("app", "many-")
	ask := func(name string) request { return request{URL: "http://" + name + "/", Times: 30} }
	for _, name := range []string{"checked-rpc", "checked-whole", "checked-other"} {
		m.until("all pods of "+name+" answer", ask(name), spread(pods...))
	}
	m.tell(pods[:1], "/serving?is=false", "/serving?is=true")
	m.until("who does not serve is left out", ask("checked-rpc"), spread(pods[1:]...))
	if r := m.ask(ask("checked-whole"))[0]; !spread(pods...)(r) {
		t.Errorf("the server as a whole serves; requests were sent to %v, %v", r.Pods, r.Statuses)
	}
	m.counted("ambit_upstream_probes_total", "app/checked-rpc.", `outcome="unhealthy"`)
	m.counted("ambit_upstream_probes_total", "app/checked-rpc.", `outcome="healthy"`)
	// A service that nobody has is never SERVING: of endpoints that are all out any
	// is better than none.
	m.counted("ambit_upstream_probes_total", "app/checked-other.", `outcome="unhealthy"`)
	m.until("all are out", ask("checked-other"), spread(pods...))
	m.tell(pods[:1], "/serving?is=true", "")
	m.until("it is back", ask("checked-rpc"), spread(pods...))
}

// An endpoint that cannot be connected to gets no requests.
func TestHealthCheckTCP(t *testing.T) {
	m := use(t)
	second := func(name string) string {
		return strings.ReplaceAll(many(name), "name: http, port: 80, targetPort: 8080", "name: http, port: 80, targetPort: 9191") + policy("RetryPolicy", name, "targetRefs: [{kind: Service, name: "+name+"}]\nattempts: 0")
	}
	m.apply(second("opened") + second("opened-unchecked") + policy("HealthCheckPolicy", "opened", `
targetRefs: [{kind: Service, name: opened}]
type: TCP
interval: 1s
timeout: 1s
unhealthyThreshold: 2
healthyThreshold: 1
`))
	pods := m.v4("app", "many-")
	m.tell(pods, "/listen?on=true", "/listen?on=false")
	ask := func(name string) request { return request{URL: "http://" + name + "/", Times: 30} }
	for _, name := range []string{"opened", "opened-unchecked"} {
		m.until("all pods of "+name+" answer", ask(name), spread(pods...))
	}
	m.tell(pods[:1], "/listen?on=false", "")
	m.until("who does not listen is left out", ask("opened"), spread(pods[1:]...))
	m.until("and would not be without being asked", ask("opened-unchecked"), func(r response) bool { return r.Statuses[503] > 0 })
	m.tell(pods[:1], "/listen?on=true", "")
	m.until("it is back", ask("opened"), spread(pods...))
}
