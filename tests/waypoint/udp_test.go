package waypoint_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// datagramPort is where the echo pods answer datagrams.
const datagramPort = 8053

// echoDatagrams answers each datagram with who it is from, the pod's version and what
// was in it.
func echoDatagrams(version string) error {
	c, err := net.ListenUDP("udp", &net.UDPAddr{Port: datagramPort})
	if err != nil {
		return err
	}
	buf := make([]byte, 65536)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return err
		}
		answer := append([]byte(version+" "+from.Addr().Unmap().String()+" "), buf[:n]...)
		_, _ = c.WriteToUDPAddrPort(answer, from)
	}
}

// datagrams says what sessions the client begins, and answered what came of them.
type datagrams struct {
	Network  string // udp, or of one family
	Addr     string
	Sessions int
	Size     int
}

type answered struct {
	Versions map[string]int // "" for sessions without an answer
	From     map[string]int
	Error    string
}

// unanswered is when a session is given up: before a ztunnel forgets what was refused,
// so that nothing is asked twice.
const unanswered = 2 * time.Second

func datagramClient() error {
	var in datagrams
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		return err
	}
	out := answered{Versions: map[string]int{}, From: map[string]int{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range in.Sessions {
		wg.Go(func() {
			version, from, err := datagramSession(in.Network, in.Addr, append(fmt.Appendf(nil, "%d ", i), bytes.Repeat([]byte("x"), in.Size)...))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				out.Error = err.Error()
			}
			out.Versions[version]++
			out.From[from]++
		})
	}
	wg.Wait()
	return json.NewEncoder(os.Stdout).Encode(out)
}

func datagramSession(network, addr string, sent []byte) (version, from string, err error) {
	c, err := net.Dial(network, addr)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	buf := make([]byte, 65536)
	for end := time.Now().Add(unanswered); time.Now().Before(end); {
		if _, err := c.Write(sent); err != nil {
			continue // what an ICMP error has left
		}
		_ = c.SetReadDeadline(time.Now().Add(unanswered / 8))
		n, err := c.Read(buf)
		if err != nil {
			continue
		}
		parts := bytes.SplitN(buf[:n], []byte(" "), 3)
		if len(parts) != 3 || !bytes.Equal(parts[2], sent) {
			return "", "", fmt.Errorf("%d bytes came back, of %d", n, len(sent))
		}
		return string(parts[0]), string(parts[1]), nil
	}
	return "", "", nil
}

// holdSession asks in one session without a pause. It says so when it has got its first
// answer, and when there are none any more.
func holdSession(addr string) error {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	begin := time.Now()
	for last := (time.Time{}); time.Since(begin) < time.Minute; {
		_, _ = c.Write([]byte("x")) // an ICMP error may be left
		_ = c.SetReadDeadline(time.Now().Add(unanswered / 20))
		switch _, err := c.Read(make([]byte, 100)); {
		case err == nil && last.IsZero():
			fmt.Println("answered")
			last = time.Now()
		case err == nil:
			last = time.Now()
		case !last.IsZero() && time.Since(last) > unanswered:
			fmt.Println("silent")
			return nil
		}
	}
	return fmt.Errorf("the session with %s went on for a minute, or never began", addr)
}

// datagramService is a Service of UDP in front of the echo pods.
func datagramService(name, version, metadata string) string {
	return fmt.Sprintf(`
---
apiVersion: v1
kind: Service
metadata: {name: %s, namespace: app%s}
spec:
  selector: {%s}
  ports: [{name: game, port: 7000, targetPort: %d, protocol: UDP}]
`, name, metadata, echoPods(version), datagramPort)
}

// udpRoute is a UDPRoute with one rule; parent is what its reference says besides the kind.
func udpRoute(namespace, name, parent, backends string) string {
	return fmt.Sprintf(`
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: UDPRoute
metadata: {name: %s, namespace: %s}
spec:
  parentRefs: [{group: "", kind: Service, %s}]
  rules: [{backendRefs: [%s]}]
`, name, namespace, parent, backends)
}

func (m *mesh) datagrams(pod, addr string, sessions, size int) (out answered) {
	m.t.Helper()
	return m.datagramsOf("udp", pod, addr, sessions, size)
}

func (m *mesh) datagramsOf(network, pod, addr string, sessions, size int) (out answered) {
	m.t.Helper()
	m.run(pod, datagrams{network, addr, sessions, size}, &out, "datagrams")
	if out.Error != "" {
		m.t.Fatal(out.Error)
	}
	return out
}

// untilDatagrams asks until a session is as it should be.
func (m *mesh) untilDatagrams(what, pod, addr string, want func(answered) bool) answered {
	m.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		got := m.datagrams(pod, addr, 4, 100)
		if want(got) {
			return got
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("not within a minute: %s; last %+v\n%s", what, got, m.logs())
		}
	}
}

func answeredBy(versions ...string) func(answered) bool {
	return func(a answered) bool {
		for v := range a.Versions {
			if !strings.Contains(strings.Join(versions, " "), v) || v == "" {
				return false
			}
		}
		return true
	}
}

func unheard(a answered) bool { return len(a.Versions) == 1 && a.Versions[""] > 0 }

// A UDPRoute splits sessions by weight: a backend of weight 0 gets none, and one that
// is not there keeps its share, whose sessions are refused for a reason.
func TestUDPRoute(t *testing.T) {
	m := use(t)
	services := datagramService("game", "v2", "") + datagramService("game-v1", "v1", "") + datagramService("game-v2", "v2", "")
	m.apply(services)
	m.untilDatagrams("the service answers", "client", "game:7000", answeredBy("v2"))
	m.logged(`"protocol":"udp"`, `"dst.service":"game.app.svc`, `"dst.workload":"echo-v2`, `/sa/client"`)

	m.apply(services + udpRoute("app", "game", "name: game, port: 7000",
		"{name: game-v1, port: 7000, weight: 1}, {name: game-v2, port: 7000, weight: 0}"))
	got := m.untilDatagrams("the route is in force", "client", "game:7000", answeredBy("v1"))
	if addr := m.addresses("app", "client")[0]; got.From[addr] == 0 {
		t.Errorf("the backend saw %v, and not the client %s", got.From, addr)
	}
	m.accessLog(`"protocol":"udp"`, `"direction":"inbound"`, `/sa/client"`, fmt.Sprintf(":%d", datagramPort))
	if got := m.datagrams("client", "game:7000", 2, 1200); got.Versions["v1"] == 0 {
		t.Errorf("datagrams as large as the path takes: %+v", got)
	}

	m.apply(services + udpRoute("app", "game", "name: game, sectionName: game",
		"{name: game-v1, port: 7000, weight: 1}, {name: lost, port: 7000, weight: 1}, {name: game-v2, port: 7000, weight: 0}"))
	m.untilDatagrams("a share is refused, and no more", "client", "game:7000", func(a answered) bool { return a.Versions[""] > 0 && a.Versions["v1"] > 0 })
	if got := m.datagrams("client", "game:7000", 16, 10); got.Versions["v2"] != 0 {
		t.Errorf("a backend of weight 0 got sessions: %v", got.Versions)
	}
	m.logged(`"protocol":"udp"`, `"response_flags":"NC"`, "there is no Service app/lost")
	m.counted("ambit_waypoint_connections_total", `response_flags="NC"`, "game.app.svc")
}

// A consumer's route is for the clients of its namespace alone.
func TestUDPRouteOfConsumers(t *testing.T) {
	m := use(t)
	m.apply(datagramService("match", "v1", "") + datagramService("match-v2", "v2", "") + udpRoute("other", "match", "name: match, namespace: app",
		"{name: match-v2, namespace: app, port: 7000}"))
	m.untilDatagrams("the consumer's route is in force", "other/client", "match.app:7000", answeredBy("v2"))
	m.untilDatagrams("others have the service's endpoints", "client", "match:7000", answeredBy("v1"))
}

// Policy holds for what comes through a waypoint, under the client's own name, and for
// sessions that are under way.
func TestUDPPolicy(t *testing.T) {
	m := use(t)
	services := datagramService("guarded", "v1", "")
	m.apply(services)
	m.untilDatagrams("the service answers", "client", "guarded:7000", answeredBy("v1"))
	held := m.program("client", "datagrams-held", "guarded:7000")
	pipe, err := held.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := held.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(pipe)
	if line, err := said.ReadString('\n'); line != "answered\n" {
		t.Fatalf("the session that is held: %q, %v", line, err)
	}
	m.apply(services + policy("AuthorizationPolicy", "players", `
targetRefs: [{kind: Service, name: guarded}]
action: DENY
rules: [{name: clients, sources: [{type: ServiceAccount, serviceAccount: {name: client}}]}]
`))
	if line, err := said.ReadString('\n'); line != "silent\n" {
		t.Errorf("the session that is held: %q, %v", line, err)
	}
	if err := held.Wait(); err != nil {
		t.Errorf("the session that is held: %v", err)
	}
	m.untilDatagrams("the client is refused", "client", "guarded:7000", unheard)
	m.untilDatagrams("another is not", "tester", "guarded:7000", answeredBy("v1"))
	m.logged(`"protocol":"udp"`, `"tunnel":"h3"`, `"response_flags":"DENY"`, `/sa/client"`, "players")
}

// Without its waypoint a service is not reached, and pods of one that requires it are
// not reached around it.
func TestUDPNeverGoesAround(t *testing.T) {
	m := use(t)
	m.apply(datagramService("astray", "v1", ""))
	m.untilDatagrams("the service answers", "client", "astray:7000", answeredBy("v1"))
	m.apply(datagramService("astray", "v1", ", labels: {ambit-mesh.io/use-waypoint: nowhere}"))
	m.untilDatagrams("the service is refused", "client", "astray:7000", unheard)
	m.accessLog(`"protocol":"udp"`, `"direction":"outbound"`, "astray", "waypoint")

	m.apply(datagramService("strict", "v1", `, annotations: {ambit-mesh.io/require-waypoint: "true"}`))
	m.untilDatagrams("the service answers through its waypoint", "client", "strict:7000", answeredBy("v1"))
	direct := net.JoinHostPort(m.addresses("app", "echo-v1")[0], fmt.Sprint(datagramPort))
	m.untilDatagrams("its pod does not otherwise", "client", direct, unheard)
	m.accessLog(`"protocol":"udp"`, `"direction":"inbound"`, "requires", "did not come through waypoint")
}
