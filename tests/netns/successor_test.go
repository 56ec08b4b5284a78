package netns_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A ztunnel is replaced again and again, at either end, by the command and by a plain
// SIGTERM: neither a download, nor an idle connection, nor one of many new connections
// notices. It ends when its last connection has.
func TestZtunnelIsReplaced(t *testing.T) {
	const far, near = "server-n2.in.svc.cluster.local", "server-n1.in.svc.cluster.local"
	m := start(t, world())
	m.captured("in")
	loads := []*steady{m.steady("in", "client", far+":8080"), m.steady("in", "client", near+":8080"), m.steady("out", "client", far+":8080")}
	idle := m.hold("in", "client", far+":8085")
	download := m.download("in", "client", far+":8080")

	for _, c := range []string{"n1/ztunnel", "n2/ztunnel", "n1/ztunnel"} {
		m.replace(c, func() {
			if out, err := m.command(t.Context(), "restart", c).CombinedOutput(); err != nil {
				t.Fatalf("restart %s: %v\n%s", c, err, out)
			}
		})
		idle.beat()
	}
	m.replace("n2/ztunnel", func() { m.signal("n2/ztunnel", "TERM") })
	idle.beat()
	for _, c := range []string{"n1/ztunnel", "n2/ztunnel"} {
		if m.component(c).draining == 0 {
			t.Errorf("no %s is left to carry the old connections: they proved nothing", c)
		}
	}
	download()
	idle.beat()
	idle.end()
	for _, l := range loads {
		if ok, failures := l.end(); failures != "" || ok < atLeast {
			t.Errorf("%d connections worked, failures: %s", ok, failures)
		}
	}
	m.until("those that were replaced have ended with their last connections", func() bool {
		return m.component("n1/ztunnel").draining+m.component("n2/ztunnel").draining == 0
	})
	m.encryptedBetween(far + ":8080")
}

// The same with tunnels over QUIC: what comes to their port is of several processes.
func TestZtunnelIsReplacedOverQUIC(t *testing.T) {
	files := world()
	files["in.yaml"] = strings.Replace(files["in.yaml"], "metadata:\n  name: in\n", "metadata:\n  name: in\n  annotations: {ambit-mesh.io/transport: h3}\n", 1)
	m := start(t, files)
	m.captured("in")
	const far = "server-n2.in.svc.cluster.local"
	load := m.steady("in", "client", far+":8080")
	idle := m.hold("in", "client", far+":8085")
	datagrams := m.holdOver("udp", "in", "client", far+":"+strconv.Itoa(datagramPort))
	download := m.download("in", "client", far+":8080")
	over := func(tunnel string) int {
		return len(m.accessLog(func(l map[string]any) bool { return l["tunnel"] == tunnel && l["direction"] == "outbound" }))
	}
	m.until("bytes go over HTTP/3", func() bool { return over("h3") > 0 })
	for _, c := range []string{"n2/ztunnel", "n1/ztunnel", "n2/ztunnel"} {
		m.replace(c, func() {
			if out, err := m.command(t.Context(), "restart", c).CombinedOutput(); err != nil {
				t.Fatalf("restart %s: %v\n%s", c, err, out)
			}
		})
		idle.beat()
		datagrams.beat()
	}
	if m.component("n2/ztunnel").draining == 0 {
		t.Error("no ztunnel is left to carry the old connections: they proved nothing")
	}
	// A ztunnel whose successor takes longer than a handshake may is found not to answer, and
	// HTTP/2 is used for ten seconds. Not for longer.
	before := over("h3")
	m.until("new connections go over HTTP/3", func() bool { return over("h3") > before })
	download()
	idle.beat()
	idle.end()
	datagrams.beat()
	if ok, failures := load.end(); failures != "" || ok < atLeast {
		t.Errorf("%d connections worked, failures: %s", ok, failures)
	}
	if h2, h3 := over("h2"), over("h3"); h2 > h3 {
		t.Errorf("%d connections went over HTTP/2, and only %d over HTTP/3", h2, h3)
	}
}

// A ztunnel that is killed leaves nobody waiting for it: the next one tells the peers of
// its tunnels over QUIC that they are gone.
func TestZtunnelIsKilledOverQUIC(t *testing.T) {
	m := start(t, world())
	m.captured("in")
	udp := []check{{Kind: "udp", Addr: "server-n2.in.svc.cluster.local:" + strconv.Itoa(datagramPort), Network: "udp4", Size: 100}}
	m.succeed("in", "client", udp)
	m.replace("n2/ztunnel", func() { m.signal("n2/ztunnel", "KILL") })
	// The first finds out, where there is no more than one datagram to find it out with.
	m.checks("in", "client", udp)
	began := time.Now()
	m.until("datagrams arrive again", func() bool { return m.checks("in", "client", udp)[0].Error == "" })
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %s", took)
	}
}

// replace waits until a component that is told to stop has a successor that is ready.
func (m *mesh) replace(component string, stop func()) {
	m.t.Helper()
	before := m.component(component)
	stop()
	m.until(component+" has a successor", func() bool {
		now := m.component(component)
		return now.pid != 0 && now.pid != before.pid && now.ready
	})
}

// download has bytes come back until the function that it gives is called, which fails
// the test if they were not those that were sent.
func (m *mesh) download(namespace, pod, addr string) (end func()) {
	m.t.Helper()
	cmd := m.probe(m.t.Context(), namespace, pod, "stream", addr)
	out := new(bytes.Buffer)
	in, err := cmd.StdinPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	return func() {
		m.t.Helper()
		err := errors.Join(in.Close(), cmd.Wait())
		if err != nil {
			m.t.Errorf("download: %v\n%s", err, out)
		}
		m.t.Logf("download: %s", out)
	}
}

// Without any ztunnel new connections wait for the next one: the node agent holds the
// sockets that it listens on.
func TestConnectionsWaitForAZtunnel(t *testing.T) {
	const far = "server-n2.in.svc.cluster.local:8080"
	m := start(t, world())
	m.captured("in")
	m.succeed("in", "client", []check{{Kind: "echo", Addr: far, Size: 1000}})
	for _, c := range []string{"n1/ztunnel", "n2/ztunnel"} {
		before := m.component(c).pid
		m.signal(c, "KILL")
		// Each of these begins while nobody accepts, or just after.
		for range 20 {
			o := m.checks("in", "client", []check{{Kind: "echo", Addr: far, Size: 1000}})[0]
			if o.Error != "" && c == "n1/ztunnel" {
				t.Errorf("after the end of %s: %s", c, o.Error)
			}
			if now := m.component(c); now.pid != 0 && now.pid != before {
				break
			}
		}
		m.until(c+" is back", func() bool { now := m.component(c); return now.pid != 0 && now.pid != before && now.ready })
	}
}

// The control plane is away while a ztunnel is replaced: the next one serves from the
// snapshot what needs no certificate, the old one its connections. When the control
// plane is back everything is as it says, what was removed meanwhile included.
func TestControlPlaneAwayWhileZtunnelIsReplaced(t *testing.T) {
	const inside, outside = "server-n2.in.svc.cluster.local:8080", "server-n2.out.svc.cluster.local:8080"
	files := world()
	files["extra.yaml"] = namespace("extra", false) + "---\n" + pod("extra", "extra", "n2")
	m := start(t, files)
	m.captured("in")
	m.succeed("in", "client", []check{{Kind: "echo", Addr: inside, Size: 1000}, {Kind: "echo", Addr: outside, Size: 1000}})
	open := m.hold("in", "client", "server-n2.in.svc.cluster.local:8085")
	if page := m.fetch("n1", "http://127.0.0.1:15021/healthz/ready"); page != "ready\n" {
		t.Errorf("readiness with the control plane there: %q", page)
	}

	m.signal("controlplane", "STOP")
	m.replace("n1/ztunnel", func() {
		if out, err := m.command(t.Context(), "restart", "n1/ztunnel").CombinedOutput(); err != nil {
			t.Fatalf("restart: %v\n%s", err, out)
		}
	})
	if page := m.fetch("n1", "http://127.0.0.1:15021/healthz/ready"); !strings.Contains(page, "serving from the snapshot of") {
		t.Errorf("readiness without the control plane: %q", page)
	}
	if !m.knows("n1", "extra") || m.stateAge("n1") <= 0 {
		t.Errorf("without the control plane: workload extra known %t, state of %v s ago", m.knows("n1", "extra"), m.stateAge("n1"))
	}
	m.succeed("in", "client", []check{{Kind: "echo", Addr: outside, Size: 1000}})
	m.succeed("out", "client", []check{{Kind: "echo", Addr: "server-n1.in.svc.cluster.local:8080", Size: 1000}})
	open.beat()
	// Keys cross no process: without an authority there is no tunnel, and no way around.
	if o := m.checks("in", "client", []check{{Kind: "echo", Addr: inside, Size: 1000}})[0]; o.Error == "" {
		t.Error("a connection between enrolled pods came about without a certificate")
	}
	m.write("extra.yaml", namespace("extra", false))

	m.signal("controlplane", "CONT")
	m.until("the state is what the control plane says", func() bool { return !m.knows("n1", "extra") && m.stateAge("n1") == 0 })
	m.until("enrolled pods connect again", func() bool {
		return m.checks("in", "client", []check{{Kind: "echo", Addr: inside, Size: 1000}})[0].Error == ""
	})
	open.beat()
	m.encryptedBetween(inside)
}

// stateDump is the part of a ztunnel's dump that tells what it knows.
type stateDump struct {
	Workloads []struct {
		Namespace string `json:"namespace"`
	} `json:"workloads"`
	State struct {
		AgeSeconds float64 `json:"ageSeconds"`
	} `json:"state"`
}

func (m *mesh) stateDump(node string) (d stateDump) {
	m.t.Helper()
	if err := json.Unmarshal([]byte(m.fetch(node, "http://127.0.0.1:15000/config_dump")), &d); err != nil {
		m.t.Fatalf("config dump of %s: %v", node, err)
	}
	return d
}

// knows reports whether a node's ztunnel knows a workload of the namespace.
func (m *mesh) knows(node, namespace string) bool {
	m.t.Helper()
	for _, w := range m.stateDump(node).Workloads {
		if w.Namespace == namespace {
			return true
		}
	}
	return false
}

// stateAge is for how many seconds a node's ztunnel has not heard the control plane.
func (m *mesh) stateAge(node string) float64 {
	m.t.Helper()
	return m.stateDump(node).State.AgeSeconds
}
