package netns_test

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What may fail when a component is killed, and nothing else does:
//
//	control plane   nothing
//	node agent      nothing
//	ztunnel         connections that it carried; new ones of its node's captured
//	                pods wait for its successor
func TestKilledComponents(t *testing.T) {
	files := world()
	m := start(t, files)
	m.captured("in")
	far, near := "server-n2.in.svc.cluster.local:8080", "server-n1.in.svc.cluster.local:8080"
	for _, component := range []string{"controlplane", "n1/nodeagent", "n2/nodeagent"} {
		t.Run(component, func(t *testing.T) {
			load := m.steady("in", "client", far)
			open := m.hold("in", "client", "server-n2.in.svc.cluster.local:8085")
			m.kill(component)
			m.succeed("in", "client", []check{{Kind: "echo", Addr: far, Size: 1000}, {Kind: "echo", Addr: near, Size: 1000}})
			open.beat()
			if ok, failures := load.end(); failures != "" || ok < 5 {
				t.Errorf("%d connections worked, failures: %s", ok, failures)
			}
			m.captured("in")
		})
	}
	t.Run("ztunnel", func(t *testing.T) {
		bystander := m.steady("out", "client", "server-n2.out.svc.cluster.local:8080")
		m.kill("n2/ztunnel")
		m.until("the successor serves", func() bool {
			return m.checks("in", "client", []check{{Kind: "echo", Addr: far, Size: 1000}})[0].Error == ""
		})
		// Those who are not enrolled noticed nothing.
		if ok, failures := bystander.end(); failures != "" || ok < 5 {
			t.Errorf("not enrolled: %d connections worked, failures: %s", ok, failures)
		}
		m.captured("in")
		m.encryptedBetween(far)
	})
}

// kill ends a component with SIGKILL and waits until it runs again.
func (m *mesh) kill(component string) {
	m.t.Helper()
	before := m.component(component)
	if out, err := m.command(m.t.Context(), "restart", component, "--signal", "9").CombinedOutput(); err != nil {
		m.t.Fatalf("restart %s: %v\n%s", component, err, out)
	}
	m.until(component+" is back", func() bool {
		now := m.component(component)
		return now.pid != 0 && now.pid != before.pid && now.ready
	})
}

type component struct {
	pid      int
	ready    bool
	draining int
}

func (m *mesh) component(name string) component {
	m.t.Helper()
	var names []string
	for _, c := range m.status().Components {
		if c.Name == name {
			return component{c.Pid, c.Ready, c.Draining}
		}
		names = append(names, c.Name)
	}
	m.t.Fatalf("no component %s among %v", name, names)
	return component{}
}

// encryptedBetween makes a connection and looks at how the destination saw it.
func (m *mesh) encryptedBetween(addr string) {
	m.t.Helper()
	count := func() int {
		return len(m.accessLog(func(l map[string]any) bool {
			return l["direction"] == "inbound" && l["src.namespace"] == "in" && l["dst.workload"] == "server-n2" && l["connection_security_policy"] == "mutual_tls" && l["error"] == nil
		}))
	}
	before := count()
	m.succeed("in", "client", []check{{Kind: "echo", Addr: addr, Size: 1000}})
	m.until("the connection is in the access log as mutual TLS", func() bool { return count() > before })
}

// Certificates of seconds, but of so many that a busy machine starts the authority
// again within half of them: many renewals, the authority killed in between, and its
// root replaced, with no connection failed.
func TestCertificatesOfSeconds(t *testing.T) {
	m := start(t, world(), "--component-arg", "controlplane=--cert-ttl=12s", "--component-arg", "controlplane=--ca-rotation-overlap=13s", "--component-arg", "ztunnel=--cert-ttl=12s")
	m.captured("in")
	load := m.steady("in", "client", "server-n2.in.svc.cluster.local:8080")
	open := m.hold("in", "client", "server-n2.in.svc.cluster.local:8085")
	m.until("certificates were renewed often", func() bool { return m.renewals("n2") >= 4 })
	open.beat()
	m.kill("controlplane")
	before := m.renewals("n1")
	m.until("renewals go on after the authority was away", func() bool { return m.renewals("n1") > before+4 })
	open.beat()
	old := m.roots("n1")
	if len(old) != 1 {
		t.Fatalf("%d roots before the rotation", len(old))
	}
	m.fetch("wire", "POST http://127.0.0.1:15000/ca/rotate")
	m.until("the new root is trusted beside the old one", func() bool { return len(m.roots("n1")) == 2 })
	open.beat()
	m.until("the old root is gone", func() bool {
		now := m.roots("n1")
		return len(now) == 1 && now[0] != old[0]
	})
	open.beat()
	m.encryptedBetween("server-n2.in.svc.cluster.local:8080")
	if ok, failures := load.end(); failures != "" || ok < atLeast {
		t.Errorf("%d connections worked, failures: %s", ok, failures)
	}
}

// roots gives the serial numbers of the roots that a node's ztunnel trusts.
func (m *mesh) roots(node string) []string {
	m.t.Helper()
	var dump struct {
		Certificates []struct {
			Roots []struct {
				SerialNumber string `json:"serialNumber"`
			} `json:"rootCerts"`
		} `json:"certificates"`
	}
	if err := json.Unmarshal([]byte(m.fetch(node, "http://127.0.0.1:15000/config_dump")), &dump); err != nil {
		m.t.Fatalf("config dump of %s: %v", node, err)
	}
	seen := make(map[string]bool)
	for _, c := range dump.Certificates {
		for _, r := range c.Roots {
			seen[r.SerialNumber] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// renewals counts the certificates that a node's ztunnel was issued.
func (m *mesh) renewals(node string) int {
	m.t.Helper()
	n := 0
	for line := range strings.Lines(m.fetch(node, "http://127.0.0.1:15020/metrics")) {
		if v, ok := strings.CutPrefix(line, "ambit_certificate_issue_duration_seconds_count "); ok {
			n, _ = strconv.Atoi(strings.TrimSpace(v))
		}
	}
	return n
}

// fetch gets a page from within a node, or from the wire, where the control plane is; "POST URL"
// posts.
func (m *mesh) fetch(node, url string) string {
	m.t.Helper()
	self, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	out, err := m.command(m.t.Context(), "exec", node, "--", "/usr/bin/env", roleEnv+"=1", self, "fetch", url).CombinedOutput()
	if err != nil {
		m.t.Fatalf("fetch %s on %s: %v\n%s", url, node, err, out)
	}
	return string(out)
}

// The authority answers nothing until just before the first certificate expires, and
// no connection fails.
func TestAuthorityAwayUntilJustBeforeExpiry(t *testing.T) {
	const life, left = 30 * time.Second, 10 * time.Second
	m := start(t, world(), "--component-arg", "controlplane=--cert-ttl="+life.String(), "--component-arg", "ztunnel=--cert-ttl="+life.String())
	m.captured("in")
	load := m.steady("in", "client", "server-n2.in.svc.cluster.local:8080")
	for range 2 {
		m.until("every certificate has most of its life before it", func() bool { return time.Until(m.firstExpiry()) > life*2/3 })
		m.signal("controlplane", "STOP")
		m.until("one is about to expire", func() bool { return time.Until(m.firstExpiry()) < left })
		m.signal("controlplane", "CONT")
	}
	m.until("all are renewed", func() bool { return time.Until(m.firstExpiry()) > left })
	if ok, failures := load.end(); failures != "" || ok < atLeast {
		t.Errorf("%d connections worked, failures: %s", ok, failures)
	}
}

// signal sends a signal to a component, which goes on existing.
func (m *mesh) signal(component, sig string) {
	m.t.Helper()
	if out, err := m.command(m.t.Context(), "exec", "wire", "--", "/bin/kill", "-"+sig, strconv.Itoa(m.component(component).pid)).CombinedOutput(); err != nil {
		m.t.Fatalf("signal %s to %s: %v\n%s", sig, component, err, out)
	}
}

// firstExpiry is when the first of the certificates of both ztunnels expires.
func (m *mesh) firstExpiry() time.Time {
	m.t.Helper()
	var first time.Time
	for _, node := range []string{"n1", "n2"} {
		var dump struct {
			Certificates []struct {
				Chain []struct {
					Expires time.Time `json:"expirationTime"`
				} `json:"certChain"`
			} `json:"certificates"`
		}
		if err := json.Unmarshal([]byte(m.fetch(node, "http://127.0.0.1:15000/config_dump")), &dump); err != nil {
			m.t.Fatalf("config dump of %s: %v", node, err)
		}
		for _, c := range dump.Certificates {
			// The leaf comes first; what issued it lives longer.
			if len(c.Chain) > 0 && (first.IsZero() || c.Chain[0].Expires.Before(first)) {
				first = c.Chain[0].Expires
			}
		}
	}
	return first
}
