package waypoint_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bind adds labels and annotations to the first Service of a manifest.
func bind(manifest, labels, annotations string) string {
	return strings.Replace(manifest, ", namespace: app}", ", namespace: app, labels: {"+labels+"}, annotations: {"+annotations+"}}", 1)
}

// gateway is a waypoint.
func gateway(namespace, name, annotations, from string) string {
	return fmt.Sprintf(`
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: %s, namespace: %s, annotations: {%s}}
spec:
  gatewayClassName: ambit-waypoint
  listeners:
  - {name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: %s}}}
`, name, namespace, annotations, from)
}

const replicas = `ambit-mesh.io/waypoint-replicas: "2"`

// condition waits until the control plane's status of an object has all of words.
func (m *mesh) condition(kind, name string, words ...string) {
	m.t.Helper()
	var said string
	deadline := time.Now().Add(time.Minute)
	for {
		said = m.statusOf(kind, name)
		missing := slices.IndexFunc(words, func(w string) bool { return !strings.Contains(said, w) })
		if missing < 0 {
			return
		}
		if time.Now().After(deadline) {
			m.t.Errorf("%s %s does not say %q: %s", kind, name, words[missing], said)
			return
		}
		pause(m.t)
	}
}

// statusOf gives what the control plane says of an object, as JSON.
func (m *mesh) statusOf(kind, name string) (said string) {
	m.t.Helper()
	r := m.askFrom("wire", request{URL: "http://127.0.0.1:15000/debug/status", Lines: "\n"})[0]
	var st struct{ Statuses, Routes []json.RawMessage }
	if err := json.Unmarshal([]byte(r.Body), &st); err != nil {
		m.t.Fatalf("%v in %q %s", err, r.Body, r.Error)
	}
	for _, raw := range append(st.Statuses, st.Routes...) {
		var of map[string]json.RawMessage
		if json.Unmarshal(raw, &of) != nil {
			continue
		}
		if object := string(of["object"]); strings.Contains(object, kind) && (strings.Contains(object, `"`+name+`"`) || strings.Contains(object, "/"+name+`"`)) {
			said += string(raw)
		}
	}
	return said
}

// refused is a connection that came to nothing, at an address that is known.
func refused(r response) bool {
	return r.Status == 0 && (strings.Contains(r.Error, "reset") || strings.Contains(r.Error, "refused") || strings.Contains(r.Error, "EOF"))
}

// refusedWith asks until it is refused and a ztunnel says why in a line with all of
// words. The first refusals may be others: names and addresses of a Service work on a
// node before its ztunnel has heard of the Service, and of its waypoint.
func (m *mesh) refusedWith(url string, words ...string) {
	m.t.Helper()
	m.until(fmt.Sprintf("it is refused with %q", words), request{URL: url, Fresh: true}, func(r response) bool {
		line, _ := m.find(words, ztunnelLogs...)
		return refused(r) && line != ""
	})
}

// One Service has a waypoint of another namespace, if that admits it; its
// replicas share the connections.
func TestWaypointOfAnotherNamespace(t *testing.T) {
	m := use(t)
	lent := bind(service("lent", "v1"), "ambit-mesh.io/use-waypoint: shared, ambit-mesh.io/use-waypoint-namespace: far", "") + `
---
apiVersion: v1
kind: Namespace
metadata: {name: far}
`
	m.apply(lent + gateway("far", "shared", replicas, "All") + route("lent", "lent", `
  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-through, value: waypoint}]}}]
    backendRefs: [{name: lent, port: 80}]
`))
	fresh := request{URL: "http://lent/", Fresh: true}
	m.until("the waypoint serves", fresh, func(r response) bool { return r.Status == 200 && r.Header.Get("x-through") != "" })
	m.condition("Service", "lent", "WaypointBound", `"Bound"`, `"True"`)
	for i := 0; i < 100; i++ {
		fresh.Times = 20
		if got := m.ask(fresh)[0]; got.Statuses[200] != 20 {
			t.Fatalf("%v", got.Statuses)
		}
		n := 0
		for _, p := range m.podsOf("far", "shared-") {
			if out, _ := m.command(t.Context(), "logs", p.Name, "-n", "far").Output(); strings.Contains(string(out), `"dst.service":"lent.app`) {
				n++
			}
		}
		if n == 2 {
			break
		}
		if i == 99 {
			t.Fatalf("of %v only %d have had connections", m.podsOf("far", "shared-"), n)
		}
	}
	m.apply(lent + gateway("far", "shared", replicas, "Same"))
	m.refusedWith("http://lent/", `"dst.service":"lent.app.svc.cluster.local"`, `far/shared`, `"direction":"outbound"`)
	m.condition("Service", "lent", "WaypointBound", "NotAllowedByListeners", "far/shared")
}

// A waypoint that is missing refuses, and says so, unless the Service may do
// without.
func TestMissingWaypoint(t *testing.T) {
	m := use(t)
	const label = "ambit-mesh.io/use-waypoint: nobody"
	m.apply(bind(service("orphan", "v1"), label, ""))
	m.refusedWith("http://orphan/", `"dst.service":"orphan.app.svc.cluster.local"`, "nobody", `"response_flags":"CONNECT"`)
	m.condition("Service", "orphan", "WaypointBound", "GatewayNotFound", "nobody")
	m.untilFrom("n1", "the failure is counted", request{URL: "http://127.0.0.1:15020/metrics", Lines: "istio_tcp_connections_failed_total"}, func(r response) bool {
		return strings.Contains(r.Body, "orphan.app.svc.cluster.local")
	})
	m.apply(bind(service("orphan", "v1"), label, `ambit-mesh.io/waypoint-fail-open: "true"`))
	m.until("it goes around", request{URL: "http://orphan/", Fresh: true}, status(200))
}

// A Service is let go by its waypoint, and goes on without it, while it is used.
func TestWaypointIsTakenAway(t *testing.T) {
	m := use(t)
	marked := route("released", "released", `
  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-through, value: waypoint}]}}]
    backendRefs: [{name: released, port: 80}]
`)
	m.apply(service("released", "v1") + marked)
	through := func(want bool) func(response) bool {
		return func(r response) bool { return r.Status == 200 && (r.Header.Get("x-through") != "") == want }
	}
	m.until("the waypoint serves", request{URL: "http://released/"}, through(true))
	done := m.load("http://released/", 4)
	m.apply(bind(service("released", "v1"), "ambit-mesh.io/use-waypoint: none", "") + marked)
	m.until("it goes on without", request{URL: "http://released/", Fresh: true}, through(false))
	m.apply(service("released", "v1") + marked)
	m.until("and with it again", request{URL: "http://released/", Fresh: true}, through(true))
	for _, got := range done() {
		if len(got.Failures) > 0 || got.Requests == 0 {
			t.Errorf("of %d requests failed %v", got.Requests, got.Failures)
		}
	}
}

// load begins a load, by HTTP/1.1 and HTTP/2, and returns when it is there; what it
// gives ends it.
func (m *mesh) load(url string, clients int) func() [2]loaded {
	m.t.Helper()
	var out [2]loaded
	var ends [2]func()
	for i := range out {
		ends[i] = m.converse("client", loadSpec{URL: url, Clients: clients, HTTP2: i == 1}, loadBegun, &out[i], "load")
	}
	return func() [2]loaded {
		m.t.Helper()
		for _, end := range ends {
			end()
		}
		return out
	}
}

// A waypoint that is replaced or told to stop lets go of its clients; one that is
// killed breaks what it had under way, and no more.
func TestWaypointRestarts(t *testing.T) {
	m := use(t)
	mortal := bind(service("mortal", "v1"), "ambit-mesh.io/use-waypoint: mortal-wp", "")
	m.apply(mortal + gateway("app", "mortal-wp", replicas, "Same"))
	m.until("the waypoint serves", request{URL: "http://mortal/"}, status(200))
	m.until("by both pods", request{URL: "http://mortal/"}, func(response) bool { return len(m.names("mortal-wp")) == 2 })

	t.Run("replaced", func(t *testing.T) {
		m := &mesh{t, m.bed}
		before := m.names("mortal-wp")
		done := m.load("http://mortal/", 4)
		m.write("testwaypointrestarts", mortal+gateway("app", "mortal-wp", replicas+`, ambit-mesh.io/waypoint-cpu-request: 7m`, "Same"))
		m.until("the pods are others", request{URL: "http://mortal/"}, func(response) bool {
			now := m.names("mortal-wp")
			return len(now) == 2 && !slices.Contains(now, before[0]) && !slices.Contains(now, before[1])
		})
		m.unharmed(done())
	})
	t.Run("stopped", func(t *testing.T) {
		m := &mesh{t, m.bed}
		done := m.load("http://mortal/", 4)
		m.signal("mortal-wp", syscall.SIGTERM)
		m.unharmed(done())
	})
	t.Run("killed", func(t *testing.T) {
		m := &mesh{t, m.bed}
		done := m.load("http://mortal/", 4)
		m.signal("mortal-wp", syscall.SIGKILL)
		for _, got := range done() {
			n := 0
			for _, k := range got.Failures {
				n += k
			}
			// What was under way: at most one request of each client, and one more
			// where the news has not come round.
			if got.Requests == 0 || n > 8 {
				t.Errorf("of %d requests %d failed: %v", got.Requests, n, got.Failures)
			}
		}
		if r := m.ask(request{URL: "http://mortal/", Times: 20, Fresh: true})[0]; r.Statuses[200] != 20 {
			t.Errorf("afterwards: %v", r.Statuses)
		}
	})
}

func (m *mesh) unharmed(list [2]loaded) {
	m.t.Helper()
	for _, got := range list {
		if len(got.Failures) > 0 || got.Requests == 0 {
			m.t.Errorf("of %d requests failed %v", got.Requests, got.Failures)
		}
	}
	if m.t.Failed() {
		for _, log := range []string{"n1/access", "n2/access"} {
			out, _ := m.command(m.t.Context(), "logs", log).Output()
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, "mortal") && strings.Contains(line, `"level":"error"`) {
					m.t.Log(log, line)
				}
			}
		}
	}
}

// signal sends a signal to the process of one pod of a waypoint, and waits until
// another is ready in its place.
func (m *mesh) signal(waypoint string, s syscall.Signal) {
	m.t.Helper()
	before := m.podsOf("app", waypoint+"-")[0]
	for _, pid := range before.Pids {
		var r response
		m.run("wire", nil, &r, "signal", strconv.Itoa(pid), strconv.Itoa(int(s)))
	}
	m.until("the waypoint is started again", request{URL: "http://mortal/"}, func(response) bool {
		return slices.ContainsFunc(m.podsOf("app", before.Name), func(p pod) bool {
			return p.Ready == "1/1" && len(p.Pids) > 0 && !maps.Equal(p.Pids, before.Pids)
		})
	})
}

// names are those of the pods of a waypoint that are ready.
func (m *mesh) names(waypoint string) (out []string) {
	m.t.Helper()
	for _, p := range m.podsOf("app", waypoint+"-") {
		if p.Ready == "1/1" {
			out = append(out, p.Name)
		}
	}
	return out
}

// Whoever collects metrics from within the mesh reaches the waypoint's through its
// tunnel port, and no other port of it.
func TestMetricsFromWithin(t *testing.T) {
	m := use(t)
	list := m.podsOf("app", "wp-")
	if len(list) == 0 || len(list[0].IPs) == 0 {
		t.Fatalf("no waypoint pod: %+v", list)
	}
	m.until("the waypoint's metrics are there", request{URL: "http://" + list[0].IPs[0] + ":15020/metrics"}, func(r response) bool {
		return r.Status == 200 && r.Size > 0
	})
	if r := m.get("http://" + list[0].IPs[0] + ":15000/config_dump"); r.Error == "" {
		t.Errorf("the admin port answered %d", r.Status)
	}
}
