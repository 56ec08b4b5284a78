package netns_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/testkit"
)

// attacks are the parts of TestHostilePeers that run in a pod, see attack_test.go.
var attacks = map[string]func(*testing.T, *attacker){
	"handshakes":         attackHandshakes,
	"requests":           attackRequests,
	"floods":             attackFloods,
	"windows":            attackWindows,
	"endless handshakes": attackEndlessHandshakes,

	"QUIC handshakes":         attackQUICHandshakes,
	"QUIC requests":           attackQUICRequests,
	"QUIC floods":             attackQUICFloods,
	"endless QUIC handshakes": attackEndlessQUICHandshakes,
}

// Bounds of what an attack may cost the ztunnel: what is left of it when it is over, and
// the most at any time, for which raceCost is allowed for. Seen without the race detector:
// 28 MB at most.
const (
	leftGoroutines = 20
	leftHeap       = 8 << 20
	peakResident   = 64 << 20
)

// Peers that do their worst at port 15008 of one pod get their exact answers from
// its ztunnel, which stays within bounds, and neither that pod's nor another pod's
// connections on the same ztunnel suffer.
func TestHostilePeers(t *testing.T) {
	if in := insideOf(t); in != nil {
		a := newAttacker(t, in)
		for name, attack := range attacks {
			t.Run(name, func(t *testing.T) { attack(t, a) })
		}
		return
	}
	files := world()
	files["tenant.yaml"] = namespace("tenant", true) + "---\n" + pod("tenant", "neighbour", "n2") + "---\n" + services("tenant", "neighbour")
	ca := testkit.NewCA(t)
	in := &inside{}
	in.Cert, in.Key = ca.PEM()
	m := start(t, files, pluggedIn(t, in)...)
	m.captured("in", "tenant")
	in.Victim = m.ip("in", "server-n2")

	peak := peakResident
	if raced(t) {
		peak *= raceCost
	}
	tenant := m.steady("in", "client", "neighbour.tenant.svc.cluster.local:8080")
	tenantsOwn := m.hold("in", "client", "neighbour.tenant.svc.cluster.local:8085")
	victims := m.hold("in", "client", "server-n2.in.svc.cluster.local:8085")
	for name := range attacks {
		before := m.expense("n2/ztunnel")
		m.runInside("out", "client", strings.ReplaceAll(name, " ", "_"), in)
		tenantsOwn.beat()
		victims.beat()
		var after expense
		m.until("what "+name+" took of the ztunnel is given back", func() bool {
			after = m.expense("n2/ztunnel")
			return after.goroutines <= before.goroutines+leftGoroutines && after.heap <= before.heap+leftHeap
		})
		if after.peak > before.resident+peak {
			t.Errorf("%s: the ztunnel had %d MB at its peak, %d MB before", name, after.peak>>20, before.resident>>20)
		}
		t.Logf("%s: goroutines %d → %d, heap %d → %d KB, resident %d MB, at most %d MB", name, before.goroutines, after.goroutines, before.heap>>10, after.heap>>10, before.resident>>20, after.peak>>20)
	}
	if ok, failures := tenant.end(); failures != "" || ok < atLeast {
		t.Errorf("another pod on the same ztunnel: %d connections worked, failures: %s", ok, failures)
	}
	m.attacksAreLogged()
	m.turnedAway("address_unproved", "source_limit", "unfinished")
}

// turnedAway wants handshakes over QUIC counted by each of the reasons.
func (m *mesh) turnedAway(reasons ...string) {
	m.t.Helper()
	metrics := m.fetch("n2", "http://127.0.0.1:15020/metrics")
	for _, why := range reasons {
		if n := number(m.t, metrics, fmt.Sprintf(`ambit_tunnel_handshakes_turned_away_total{reason=%q,transport="h3"} `, why)); n == 0 {
			m.t.Errorf("no handshake over QUIC was counted as %s", why)
		}
	}
}

// attacksAreLogged looks for the reason of each kind of refusal at the attacked end.
func (m *mesh) attacksAreLogged() {
	m.t.Helper()
	lines := m.accessLog(func(l map[string]any) bool {
		return l["direction"] == "inbound" && l["dst.workload"] == "server-n2" && l["error"] != nil
	})
	for _, want := range []string{
		"didn't provide a certificate", "certificate has expired", "unknown authority", "another trust domain",
		"unsupported versions", "does not speak h2", "unsupported application protocols", "is not this pod", "port 15008 is the proxy's own",
	} {
		found := false
		for _, l := range lines {
			found = found || strings.Contains(l["error"].(string), want)
		}
		if !found {
			m.t.Errorf("no line of the attacked ztunnel's access log says %q", want)
		}
	}
}

// pluggedIn gives the arguments that make the mesh use the test's authority.
func pluggedIn(t *testing.T, in *inside) []string {
	t.Helper()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "root.pem"), filepath.Join(dir, "key.pem")
	for path, text := range map[string][]byte{cert: in.Cert, key: in.Key} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var args []string
	for _, flag := range []string{"--ca-root-cert=" + cert, "--ca-cert=" + cert, "--ca-key=" + key} {
		args = append(args, "--component-arg", "controlplane="+flag)
	}
	return args
}

// expense is what a component holds: goroutines, heap after a collection, and
// resident memory now and at its peak, in bytes.
type expense struct {
	goroutines, heap, resident, peak int
}

func (m *mesh) expense(component string) expense {
	m.t.Helper()
	node, _, _ := strings.Cut(component, "/")
	heap := m.fetch(node, "http://127.0.0.1:15000/debug/pprof/heap?gc=1&debug=1")
	metrics := m.fetch(node, "http://127.0.0.1:15020/metrics")
	out, err := m.command(m.t.Context(), "exec", node, "--", "/bin/cat", fmt.Sprintf("/proc/%d/status", m.component(component).pid)).Output()
	if err != nil {
		m.t.Fatalf("status of %s: %v", component, err)
	}
	return expense{
		goroutines: number(m.t, metrics, "go_goroutines "),
		heap:       number(m.t, heap, "# HeapAlloc = "),
		resident:   number(m.t, string(out), "VmRSS:") << 10,
		peak:       number(m.t, string(out), "VmHWM:") << 10,
	}
}

// number finds the number of the line that begins with a prefix.
func number(t *testing.T, text, prefix string) int {
	t.Helper()
	for s := bufio.NewScanner(bytes.NewBufferString(text)); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), prefix); ok {
			if n, err := strconv.Atoi(strings.Fields(rest)[0]); err == nil {
				return n
			}
		}
	}
	t.Fatalf("no number behind %q in\n%s", prefix, tail([]byte(text), 1000))
	return 0
}
