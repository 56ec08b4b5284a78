package waypoint_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lasting is what became of a session that went on for long.
type lasting struct {
	Answers int
	// Gap is the longest time without an answer, after the first one.
	Gap time.Duration
}

// lastingSession asks in one session until the input ends.
func lastingSession(in io.Reader, out io.Writer) error {
	var to struct{ Addr string }
	if err := json.NewDecoder(in).Decode(&to); err != nil {
		return err
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = io.Copy(io.Discard, in)
	}()
	var c net.Conn
	var l lasting
	var begun, last time.Time
	for {
		select {
		case <-over:
			if l.Answers > 0 {
				l.Gap = max(l.Gap, time.Since(last))
			}
			if c != nil {
				_ = c.Close()
			}
			return json.NewEncoder(out).Encode(l)
		default:
		}
		if c == nil {
			var err error
			if c, err = net.Dial("udp", to.Addr); err != nil {
				c = nil // the name is not known yet
				continue
			}
			begun = time.Now()
		}
		_, _ = c.Write([]byte("x")) // an ICMP error may be left
		_ = c.SetReadDeadline(time.Now().Add(unanswered / 20))
		if _, err := c.Read(make([]byte, 100)); err != nil {
			if l.Answers == 0 && time.Since(begun) > unanswered {
				_ = c.Close() // for a moment the name of a new Service may stand for its pods
				c = nil
			}
			continue
		}
		now := time.Now()
		if l.Answers++; l.Answers == 1 {
			fmt.Fprintln(out, "answered")
		} else {
			l.Gap = max(l.Gap, now.Sub(last))
		}
		last = now
	}
}

// A waypoint that stops lets sessions go on until its time is up, takes no new ones,
// and has those of clients that go on after that continue at another replica.
func TestUDPDrain(t *testing.T) {
	m := use(t)
	service := datagramService("lasting", "v1", ", labels: {ambit-mesh.io/use-waypoint: lasting-wp}")
	m.apply(service + gateway("app", "lasting-wp", "", "Same"))
	var l lasting
	end := m.converse("client", map[string]string{"Addr": "lasting:7000"}, "answered", &l, "datagrams-lasting")
	old := m.names("lasting-wp")
	if len(old) != 1 {
		t.Fatalf("pods of the waypoint: %v", old)
	}
	m.apply(service + gateway("app", "lasting-wp", replicas, "Same"))
	m.until("there is another replica", request{URL: "http://127.0.0.1:1/"}, func(response) bool { return len(m.names("lasting-wp")) == 2 })
	stopped := time.Now()
	for _, p := range m.podsOf("app", old[0]) {
		for _, pid := range p.Pids {
			var r response
			m.run("wire", nil, &r, "signal", strconv.Itoa(pid), strconv.Itoa(int(syscall.SIGTERM)))
		}
	}
	// It is asked for when the first has been told, and every client goes elsewhere.
	m.untilDatagrams("new sessions are answered", "client", "lasting:7000", answeredBy("v1"))
	m.untilDatagrams("those of others, too", "tester", "lasting:7000", answeredBy("v1"))
	if took := time.Since(stopped); took > drainTime {
		t.Logf("this machine is slow: the waypoint's time was up before it was asked, after %s", took)
	}
	line := m.lineOf([]string{`"protocol":"udp"`, `"tunnel":"h3"`, `"dst.service":"lasting.app`, "the waypoint has stopped"}, []string{old[0], "-n", "app"})
	var at struct {
		Duration string `json:"duration"`
	}
	if err := json.Unmarshal([]byte(line), &at); err != nil {
		t.Fatalf("%v in %s", err, line)
	}
	lived, err := time.ParseDuration(at.Duration)
	if err != nil {
		lived, err = time.ParseDuration(at.Duration + "ms")
	}
	if err != nil || lived < drainTime-time.Second {
		t.Errorf("the session lived for %s (%v), want at least %s", lived, err, drainTime)
	}
	m.loggedByOther(old[0])
	end()
	if l.Answers == 0 || l.Gap > drainTime/2 {
		t.Errorf("the session had %d answers, and none for %s", l.Answers, l.Gap)
	}
}

// loggedByOther waits until the other replica has written of sessions.
func (m *mesh) loggedByOther(old string) {
	m.t.Helper()
	for _, name := range m.names("lasting-wp") {
		if name != old {
			m.lineOf([]string{`"protocol":"udp"`, `"dst.service":"lasting.app`, `"dst.workload":"echo-v1`}, []string{name, "-n", "app"})
			return
		}
	}
	m.t.Error("there is no other replica")
}

// dual has Services with addresses of both families.
func dual(services string) string {
	return strings.ReplaceAll(services, "spec:\n  selector:", "spec:\n  ipFamilyPolicy: PreferDualStack\n  selector:")
}

// A pod that is not in the mesh is reached behind a waypoint as it is, and what the
// waypoint's policies say of who may holds for it; over both families.
func TestUDPToPlaintext(t *testing.T) {
	m := use(t)
	self, _ := os.Executable()
	var pod strings.Builder
	deploy(&pod, self, 1, "app", "bare", "bare", "v1", "bare", "echo")
	bare := strings.Replace(pod.String(), "labels: {app: bare, version: v1}}\n    spec:", "labels: {app: bare, version: v1, ambit-mesh.io/dataplane-mode: none}}\n    spec:", 1)
	services := bare + dual(strings.ReplaceAll(datagramService("bare", "v1", ""), "app: echo", "app: bare"))
	m.apply(services)
	m.untilDatagrams("the service answers", "client", "bare:7000", answeredBy("v1"))
	m.logged(`"protocol":"udp"`, `"dst.service":"bare.app.svc`, `"dst.workload":"bare-`, `/sa/client"`)
	for _, p := range m.podsOf("app", "bare-") {
		if p.Captured == "CAPTURED" {
			t.Errorf("the pod is captured: %+v", p)
		}
	}
	if got := m.datagramsOf("udp6", "client", "bare:7000", 4, 1200); got.Versions["v1"] != 4 {
		t.Errorf("over IPv6: %+v", got)
	}
	m.apply(services + policy("AuthorizationPolicy", "bare", `
targetRefs: [{kind: Service, name: bare}]
action: ALLOW
enforcementLevel: Application
rules: [{name: clients, sources: [{type: ServiceAccount, serviceAccount: {name: client}}]}]
`))
	m.untilDatagrams("another is refused", "tester", "bare:7000", unheard)
	m.untilDatagrams("the client is not", "client", "bare:7000", answeredBy("v1"))
	m.logged(`"protocol":"udp"`, `"dst.service":"bare.app.svc`, `"response_flags":"DENY"`, `/sa/tester"`, "app/bare")
}

// Over IPv6 a session goes through the waypoint to a pod of the mesh as over IPv4.
func TestUDPOverIPv6(t *testing.T) {
	m := use(t)
	m.apply(dual(datagramService("six", "v2", "")) + datagramService("six-v1", "v1", "") + udpRoute("app", "six", "name: six, port: 7000", "{name: six-v1, port: 7000}"))
	m.untilDatagrams("the route is in force", "client", "six:7000", answeredBy("v1"))
	got := m.datagramsOf("udp6", "client", "six:7000", 4, 100)
	if got.Versions["v1"] != 4 {
		t.Fatalf("over IPv6: %+v", got)
	}
	for from := range got.From {
		if a, err := netip.ParseAddr(from); err != nil || !a.Is6() {
			t.Errorf("the backend saw %q", from)
		}
	}
	m.logged(`"protocol":"udp"`, `"dst.service":"six.app.svc`, `"dst.workload":"echo-v1`, `"dst.addr":"[`)
}

// A host outside that has a waypoint has no UDP ports: datagrams to it are refused, and
// told of, not passed on beside it.
func TestUDPToHostsOutside(t *testing.T) {
	m := use(t)
	at := m.v4("outside", "host-")[0]
	m.apply(externalService("mute", "wp", "hosts: [mute.example.org]\n  resolution: Static\n  endpoints: [{address: "+at+"}]"))
	m.until("the host is reached", request{URL: "http://mute.example.org/"}, status(200))
	m.untilDatagrams("datagrams are refused", "client", "mute.example.org:80", unheard)
	m.accessLog(`"protocol":"udp"`, `"direction":"outbound"`, `"dst.service":"mute.example.org"`, "UDP port 80")
}
