package nodeagent

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"

	nodepb "github.com/ambit-mesh/ambit/apis/node"
	"github.com/ambit-mesh/ambit/internal/admin"
	"github.com/ambit-mesh/ambit/internal/netns/netnstest"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/capture"
)

// A running pod is captured and released by the control plane's word alone, and
// not one of its connections fails.
func TestEnrolAndReleaseARunningPod(t *testing.T) {
	b := newBed(t)
	b.plane.namespace(t, "shop", false)
	b.plane.pod(t, "u1", false)
	b.plane.arrive()
	b.start()
	b.startProxy()
	p := b.newPod("u1")
	p.mustAdd()
	p.wantVia("peer")
	old, _, err := p.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()

	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				t.Logf("%d connections", n)
				return
			default:
			}
			c, _, err := p.connect()
			if err != nil {
				t.Errorf("connection %d: %v", n, err)
				return
			}
			c.Close()
		}
	})
	b.plane.pod(t, "u1", true)
	netnstest.Eventually(t, "u1 is captured", func() bool { return b.plane.is("u1", nodepb.PodState_CAPTURED) })
	if p.state() != capture.Captured || !b.proxy.has("u1") {
		t.Errorf("reported captured, but rules are %s", p.state())
	}
	p.wantVia("ztunnel")
	during, _, err := p.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer during.Close()

	b.plane.pod(t, "u1", false)
	netnstest.Eventually(t, "u1 is released", func() bool { return b.plane.is("u1", nodepb.PodState_RELEASED) })
	p.wantVia("peer")
	for _, c := range []struct {
		name string
		conn interface {
			Write([]byte) (int, error)
			Read([]byte) (int, error)
		}
	}{{"from before", old}, {"from during", during}} {
		if _, err := c.conn.Write([]byte("x")); err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if _, err := c.conn.Read(make([]byte, 1)); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if p.state() != capture.Draining || !b.proxy.has("u1") {
		t.Errorf("with a connection left, rules are %s", p.state())
	}
	close(stop)
	wg.Wait()
	during.Close()
	netnstest.Eventually(t, "nothing is left", func() bool { return p.state() == capture.Absent && !b.proxy.has("u1") })
}

func TestAPodOfAnEnrolledNamespaceStartsCaptured(t *testing.T) {
	b := newBed(t)
	b.plane.namespace(t, "shop", true)
	b.plane.arrive()
	b.start()
	b.startProxy()
	hold := make(chan struct{})
	b.proxy.set(nil, hold)
	p := b.newPod("u1")
	answered := make(chan int, 1)
	go func() { status, _ := p.add(); answered <- status }()
	// First the CNI plugin, then the control plane, then ztunnel.
	netnstest.Eventually(t, "the pod is known", func() bool { return len(b.agent.pods.Dump().Pods) == 1 })
	b.plane.pod(t, "u1", true)
	netnstest.Eventually(t, "the pod is handed over", func() bool { return b.agent.pods.Dump().Pods[0].HandedOver })
	select {
	case status := <-answered:
		t.Fatalf("answered %d before ztunnel listens", status)
	default:
	}
	if p.state() != capture.Absent {
		t.Errorf("rules before listeners: %s", p.state())
	}
	close(hold)
	if status := <-answered; status != http.StatusOK {
		t.Errorf("status %d", status)
	}
	if p.state() != capture.Captured {
		t.Errorf("started while rules are %s", p.state())
	}
	if info := b.proxy.info("u1"); info.Name != "app-u1" || info.Namespace != "shop" || info.ServiceAccount != "app" {
		t.Errorf("ztunnel was told %+v", info)
	}
	if got := metric(t, b.agent, "ambit_captured_pods"); got != 1 {
		t.Errorf("ambit_captured_pods %v", got)
	}
	netnstest.Eventually(t, "u1 is reported", func() bool { return b.plane.is("u1", nodepb.PodState_CAPTURED) })
}

func TestAPodThatCannotBeCapturedDoesNotStart(t *testing.T) {
	t.Run("no ztunnel", func(t *testing.T) {
		b := newBed(t)
		b.plane.pod(t, "u1", true)
		b.plane.arrive()
		b.start()
		p := b.newPod("u1")
		if status, problem := p.add(); status != http.StatusServiceUnavailable || !strings.Contains(problem, "no ztunnel is connected") {
			t.Errorf("%d %s", status, problem)
		}
	})
	t.Run("ztunnel refuses", func(t *testing.T) {
		b := newBed(t)
		b.plane.pod(t, "u1", true)
		b.plane.arrive()
		b.start()
		b.startProxy()
		b.proxy.set(errors.New("no certificate"), nil)
		p := b.newPod("u1")
		if status, problem := p.add(); status != http.StatusServiceUnavailable || !strings.Contains(problem, "no certificate") {
			t.Errorf("%d %s", status, problem)
		}
		state, message, _ := b.plane.reported("u1")
		if state != nodepb.PodState_FAILED || !strings.Contains(message, "no certificate") {
			t.Errorf("reported %s %q", state, message)
		}
		// It is tried again, and mends itself.
		b.proxy.set(nil, nil)
		p.mustAdd()
	})
	t.Run("rules refused", func(t *testing.T) {
		b := newBed(t)
		b.plane.pod(t, "u1", true)
		b.plane.arrive()
		b.start()
		b.startProxy()
		p := b.newPod("u1")
		h := netnstest.Handle(t, p.ns)
		lo, err := h.LinkByName("lo")
		if err != nil {
			t.Fatal(err)
		}
		if err := h.LinkSetDown(lo); err != nil {
			t.Fatal(err)
		}
		if status, problem := p.add(); status != http.StatusServiceUnavailable || !strings.Contains(problem, "lo is down") {
			t.Errorf("%d %s", status, problem)
		}
		if state, message, _ := b.plane.reported("u1"); state != nodepb.PodState_FAILED || !strings.Contains(message, "lo is down") {
			t.Errorf("reported %s %q", state, message)
		}
		netnstest.Up(t, p.ns, "lo")
		p.mustAdd()
	})
}

func TestWithoutTheControlPlane(t *testing.T) {
	b := newBed(t)
	b.plane.namespace(t, "shop", true)
	b.plane.namespace(t, "other", false)
	b.plane.pod(t, "u1", true)
	b.plane.arrive()
	b.start()
	b.startProxy()
	captured := b.newPod("u1")
	captured.mustAdd()
	b.plane.leave()
	b.stopAgent()
	if captured.state() != capture.Captured {
		t.Fatalf("stopping the agent left rules %s", captured.state())
	}

	b.start() // which knows the control plane from before only
	enrolled := b.newPod("u2")
	if status, problem := enrolled.add(); status != http.StatusServiceUnavailable || !strings.Contains(problem, "namespace shop is enrolled") {
		t.Errorf("pod of an enrolled namespace: %d %s", status, problem)
	}
	plain := b.newPod("u3")
	status, problem := b.post("/cmdadd", map[string]any{"netns": plain.path, "podName": "x", "podNamespace": "other", "podUID": "u3"})
	if status != http.StatusOK || plain.state() != capture.Absent {
		t.Errorf("pod of another namespace: %d %s, rules %s", status, problem, plain.state())
	}
	if captured.state() != capture.Captured || !b.proxy.has("u1") {
		t.Errorf("captured pod: rules %s", captured.state())
	}

	// It comes back, with a word for each.
	b.plane.pod(t, "u2", true)
	b.plane.arrive()
	netnstest.Eventually(t, "the pod starts when it is tried again", func() bool { status, _ := enrolled.add(); return status == http.StatusOK })
	if enrolled.state() != capture.Captured {
		t.Errorf("rules %s", enrolled.state())
	}
	netnstest.Eventually(t, "all are reported", func() bool {
		return b.plane.is("u1", nodepb.PodState_CAPTURED) && b.plane.is("u2", nodepb.PodState_CAPTURED) && b.plane.is("u3", nodepb.PodState_RELEASED)
	})
}

// The agent is killed under captured pods, things happen, and it comes back.
func TestRestart(t *testing.T) {
	b := newBed(t)
	b.plane.namespace(t, "shop", true)
	uids := []string{"u1", "u2", "u3"}
	for _, uid := range uids {
		b.plane.pod(t, uid, true)
	}
	b.plane.arrive()
	b.start()
	b.startProxy()
	var all []*testPod
	for _, uid := range uids {
		p := b.newPod(uid)
		p.mustAdd()
		all = append(all, p)
	}
	kept, damaged, gone := all[2], all[1], all[0] // kept is the one that peerAddr is for
	c, via, err := kept.connect()
	if err != nil || via != "ztunnel" {
		t.Fatal(via, err)
	}
	defer c.Close()
	b.plane.leave()
	b.stopAgent()
	kept.wantVia("ztunnel")

	gone.kill()
	err = damaged.ns.Do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		conn.FlushRuleset()
		return conn.Flush()
	})
	if err != nil {
		t.Fatal(err)
	}
	b.start()
	netnstest.Eventually(t, "the damaged pod is mended", func() bool { return damaged.state() == capture.Captured })
	netnstest.Eventually(t, "ztunnel drops the pod that is gone", func() bool { return !b.proxy.has("u1") })
	if !b.proxy.has("u2") || !b.proxy.has("u3") || kept.state() != capture.Captured {
		t.Error("a captured pod was lost")
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Error(err)
	} else if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	b.plane.arrive()
	netnstest.Eventually(t, "the survivors are reported", func() bool {
		_, _, known := b.plane.reported("u1")
		return b.plane.is("u2", nodepb.PodState_CAPTURED) && b.plane.is("u3", nodepb.PodState_CAPTURED) && !known
	})

	// What was released while the agent was away is released now.
	b.stopAgent()
	b.plane.pod(t, "u2", false)
	b.start()
	netnstest.Eventually(t, "u2 is released", func() bool { return damaged.state() == capture.Absent })
	if kept.state() != capture.Captured {
		t.Errorf("rules of the other %s", kept.state())
	}
}

func TestRulesAreMended(t *testing.T) {
	b := newBed(t)
	b.plane.pod(t, "u1", true)
	b.plane.arrive()
	b.start()
	b.startProxy()
	p := b.newPod("u1")
	p.mustAdd()
	err := p.ns.Do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		conn.FlushRuleset()
		return conn.Flush()
	})
	if err != nil {
		t.Fatal(err)
	}
	netnstest.Eventually(t, "rules are back", func() bool { return p.state() == capture.Captured })
	netnstest.Eventually(t, "the repair is counted", func() bool {
		return metric(t, b.agent, "ambit_capture_repairs_total") == 1
	})
	// That the control plane forgets a pod does not release it.
	b.plane.remove(typePod, "u1")
	netnstest.Eventually(t, "the word is taken in", func() bool { return b.agent.pods.Dump().Pods[0].Wanted == "unknown" })
	if p.state() != capture.Captured || !b.proxy.has("u1") {
		t.Errorf("rules %s", p.state())
	}
	// Its namespace going away does, without a word of the plugin.
	p.kill()
	netnstest.Eventually(t, "the pod is forgotten", func() bool { return len(b.agent.pods.Dump().Pods) == 0 && !b.proxy.has("u1") })
}

func TestDeletedPod(t *testing.T) {
	b := newBed(t)
	b.plane.pod(t, "u1", true)
	b.plane.arrive()
	b.start()
	b.startProxy()
	p := b.newPod("u1")
	p.mustAdd()
	for range 2 {
		if status, problem := b.post("/cmddel", map[string]any{"podUID": "u1"}); status != http.StatusOK {
			t.Errorf("cmddel: %d %s", status, problem)
		}
	}
	netnstest.Eventually(t, "ztunnel has let go", func() bool { return !b.proxy.has("u1") })
	// The same pod with a new sandbox.
	again := b.newPod("u1")
	again.mustAdd()
	if again.state() != capture.Captured {
		t.Errorf("rules %s", again.state())
	}
	// And once more without a word of the plugin in between.
	third := b.newPod("u1")
	third.mustAdd()
	if third.state() != capture.Captured {
		t.Errorf("rules %s", third.state())
	}
}

func TestHostileRequests(t *testing.T) {
	b := newBed(t)
	b.plane.namespace(t, "shop", false)
	b.plane.arrive()
	b.start()
	p := b.newPod("u1")
	p.mustAdd()
	// /proc/self is about the first thread, which may just be in a pod for somebody.
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	for _, tc := range []struct {
		name, netns, want string
	}{
		{"own", fmt.Sprintf("/proc/self/fd/%d", own.Fd()), "node agent's own"},
		{"missing", "/run/netns/no-such", "is gone"},
		{"not a namespace", "/dev/null", "not a network namespace"},
		{"another kind", "/proc/self/ns/mnt", "not a network namespace"},
		{"another pod's", p.path, "is that of pod shop/app-u1"},
		{"climbing", "/run/../proc/self/ns/net", "absolute path"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, problem := b.post("/cmdadd", map[string]any{"netns": tc.netns, "podName": "x", "podNamespace": "shop", "podUID": "evil"})
			if status != http.StatusBadRequest || !strings.Contains(problem, tc.want) {
				t.Errorf("%d %s", status, problem)
			}
		})
	}
	if n := len(b.agent.pods.Dump().Pods); n != 1 {
		t.Errorf("%d pods", n)
	}
	// Resources that are not what they say are rejected, and the rest is used.
	b.plane.put(t, typePod, "u9", &nodepb.Pod{Uid: "u8", Captured: true})
	b.plane.put(t, typePod, "u7", &nodepb.Namespace{Name: "u7"})
	netnstest.Eventually(t, "both are rejected", func() bool {
		b.plane.mu.Lock()
		defer b.plane.mu.Unlock()
		return len(b.plane.nacks) == 2
	})
}

func TestReadinessAndDump(t *testing.T) {
	b := newBed(t)
	b.start()
	ready := func() string {
		w := httptest.NewRecorder()
		admin.ReadyHandler(b.agent.ready).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/healthz/ready", nil))
		return fmt.Sprint(w.Code, " ", strings.TrimSpace(w.Body.String()))
	}
	if got, want := ready(), "503 pending: connection of ztunnel, enrolment from the control plane"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	b.plane.arrive()
	netnstest.Eventually(t, "the control plane is synced", func() bool { return ready() == "503 pending: connection of ztunnel" })
	b.startProxy()
	netnstest.Eventually(t, "all is ready", func() bool { return ready() == "200 ready" })

	p := b.newPod("u1")
	b.plane.pod(t, "u1", true)
	p.mustAdd()
	w := httptest.NewRecorder()
	b.agent.configDump(w, httptest.NewRequest(http.MethodGet, "/config_dump", nil))
	for _, want := range []string{`"uid": "u1"`, `"phase": "captured"`, `"wanted": "capture"`, `"ztunnelConnections": 1`, `"current": true`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %s in %s", want, w.Body)
		}
	}
}

func TestConfig(t *testing.T) {
	good := Config{Node: "n1", ZDSSocket: "/a", CNISocket: "/b", StateDir: "/c"}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*Config){
		"node":          func(c *Config) { c.Node = "" },
		"zds socket":    func(c *Config) { c.ZDSSocket = "x" },
		"cni socket":    func(c *Config) { c.CNISocket = "" },
		"state dir":     func(c *Config) { c.StateDir = "./x" },
		"drain timeout": func(c *Config) { c.DrainTimeout = -time.Second },
	} {
		c := good
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}
