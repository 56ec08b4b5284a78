package netns_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone/hbonetest"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

// attacker is a pod that is not enrolled and has got hold of the mesh's authority.
type attacker struct {
	victim string
	ca     *testkit.CA
	id     identity.ID
	good   *tls.Config // of a client that may come in
	good3  *tls.Config // the same over QUIC
}

func newAttacker(t *testing.T, in *inside) *attacker {
	t.Helper()
	ca := testkit.LoadCA(t, in.Cert, in.Key)
	me := ca.Workload("in", "client")
	good, err := me.ClientConfig(ca.Workload("in", "server-n2").ID)
	if err != nil {
		t.Fatal(err)
	}
	good3, err := me.QUICClientConfig(ca.Workload("in", "server-n2").ID)
	if err != nil {
		t.Fatal(err)
	}
	return &attacker{victim: in.Victim, ca: ca, id: me.ID, good: good, good3: good3}
}

func (a *attacker) at(port string) string { return net.JoinHostPort(a.victim, port) }

func (a *attacker) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", a.at("15008"), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// peer is let in, and may go on from there.
func (a *attacker) peer(t *testing.T, settings ...http2.Setting) *hbonetest.Peer {
	t.Helper()
	c := tls.Client(a.dial(t), a.good)
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	p := hbonetest.NewPeer(t, c)
	p.Hello(settings...)
	return p
}

func attackHandshakes(t *testing.T, a *attacker) {
	for _, h := range hbonetest.BadHandshakes(t, a.ca, a.id, a.good) {
		t.Run(h.Name, func(t *testing.T) { h.Refused(t, a.dial(t)) })
	}
	t.Run("no TLS", func(t *testing.T) {
		c := a.dial(t)
		_, _ = c.Write([]byte("CONNECT 10.0.0.1:80 HTTP/1.1\r\nHost: 10.0.0.1:80\r\n\r\n"))
		// Reset or closed, as long as nothing is said.
		if b, err := io.ReadAll(c); len(b) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("got %q, %v, want the end", b, err)
		}
	})
	t.Run("good", func(t *testing.T) { a.peer(t).Accepted(1, a.at("8080")) })
}

// badRequest is a request that is answered otherwise than by 200.
type badRequest struct {
	name   string
	fields []string
	status string
	reason string // in Proxy-Status
}

// badRequests are those of either transport.
func (a *attacker) badRequests() []badRequest {
	connect := func(authority string) []string { return []string{":method", "CONNECT", ":authority", authority} }
	return []badRequest{
		{"GET", []string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", a.at("8080")}, "400", "http_request_error; details=\"method must be CONNECT\""},
		{"authority without port", connect(a.victim), "400", "http_request_error; details=\"authority"},
		{"authority that is none", connect("a@b/c"), "400", "http_request_error; details=\"authority"},
		{"port 0", connect(a.at("0")), "400", "port 0"},
		{"another pod", connect("10.200.0.1:8080"), "400", "authority 10.200.0.1:8080 is not this pod"},
		{"loopback", connect("127.0.0.1:8080"), "400", "authority 127.0.0.1:8080 is not this pod"},
		{"loopback, IPv6", connect("[::1]:8080"), "400", "authority [::1]:8080 is not this pod"},
		{"unspecified", connect("0.0.0.0:8080"), "400", "authority 0.0.0.0:8080 is not this pod"},
		{"admin port on loopback", connect("localhost:15000"), "503", "destination_not_found"},
		{"foreign service", connect("neighbour.tenant.svc.cluster.local:8080"), "503", "destination_not_found"},
		{"outbound capture", connect(a.at("15001")), "503", "destination_ip_prohibited; details=\"port 15001 is the proxy's own\""},
		{"inbound capture", connect(a.at("15006")), "503", "destination_ip_prohibited; details=\"port 15006 is the proxy's own\""},
		{"tunnel in a tunnel", connect(a.at("15008")), "503", "destination_ip_prohibited; details=\"port 15008 is the proxy's own\""},
		{"nobody listens", connect(a.at("9999")), "503", "connection_refused"},
	}
}

func attackRequests(t *testing.T, a *attacker) {
	connect := func(authority string) []string { return []string{":method", "CONNECT", ":authority", authority} }
	for _, tc := range append(a.badRequests(),
		badRequest{"no authority", []string{":method", "CONNECT"}, "400", "http_request_error; details=\"no authority\""},
		badRequest{"oversize headers", append(connect(a.at("8080")), "baggage", strings.Repeat("a", 17<<10)), "431", "http_request_error; details=\"header fields too large\""},
	) {
		t.Run(tc.name, func(t *testing.T) {
			p := a.peer(t)
			p.OK(p.Headers(1, false, tc.fields...))
			got := p.Answer(1)
			if got.PseudoValue("status") != tc.status || !strings.Contains(proxyStatus(got), tc.reason) {
				t.Fatalf("answer %s, %q, want %s, %q", got.PseudoValue("status"), proxyStatus(got), tc.status, tc.reason)
			}
			p.WantReset(1, http2.ErrCodeNo)
			p.Accepted(3, a.at("8080")) // others go on
		})
	}
	t.Run("a header block too large to decode", func(t *testing.T) {
		p := a.peer(t)
		p.OK(p.Headers(1, false, append(connect(a.at("8080")), "a", strings.Repeat("\xff", 17<<10))...))
		p.WantGoAway(http2.ErrCodeEnhanceYourCalm)
	})
}

func proxyStatus(h *http2.MetaHeadersFrame) string {
	for _, f := range h.RegularFields() {
		if f.Name == "proxy-status" {
			return f.Value
		}
	}
	return ""
}

func attackFloods(t *testing.T, a *attacker) {
	for _, f := range hbonetest.Floods(a.at("8085")) {
		t.Run(f.Name, func(t *testing.T) {
			p := a.peer(t)
			p.Accepted(1, a.at("8085"))
			f.Exhausts(p)
		})
	}
}

// attackWindows lets applications send without end and takes nothing.
func attackWindows(t *testing.T, a *attacker) {
	for range 4 {
		p := a.peer(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		p.Seen = func(f http2.Frame) {
			if d, ok := f.(*http2.DataFrame); ok && len(d.Data()) > 0 {
				t.Fatalf("%d bytes came without a window", len(d.Data()))
			}
		}
		for id := uint32(1); id < 200; id += 2 {
			p.Accepted(id, a.at("8086"))
		}
		p.Alive()
		// Room for one byte is used for one byte.
		p.Seen = nil
		p.OK(p.Framer.WriteWindowUpdate(1, 1))
		p.Until("one byte", func(f http2.Frame) bool {
			d, ok := f.(*http2.DataFrame)
			return ok && d.StreamID == 1 && len(d.Data()) == 1
		})
	}
}

// attackEndlessHandshakes begins far more handshakes than a pod has at a time and
// ends none.
func attackEndlessHandshakes(t *testing.T, a *attacker) {
	hello := clientHello(t, a.good)
	var conns []net.Conn
	for i := range 800 {
		c := a.dial(t)
		if _, err := c.Write(hello[:i%len(hello)]); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	began := time.Now()
	for _, c := range conns {
		_ = c.SetReadDeadline(began.Add(20 * time.Second)) // they have 10 s each
		if _, err := io.ReadAll(c); errors.Is(err, syscall.ETIMEDOUT) || isTimeout(err) {
			t.Fatal("the ztunnel goes on waiting for a handshake")
		}
	}
	// There is room again, and who has shaken hands and then says nothing is told so.
	c := tls.Client(a.dial(t), a.good)
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	p := hbonetest.NewPeer(t, c)
	p.Write([]byte(http2.ClientPreface))
	p.WantGoAway(http2.ErrCodeSettingsTimeout)
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// clientHello gives the first bytes of a handshake.
func clientHello(t *testing.T, cfg *tls.Config) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() { _ = tls.Client(theirs, cfg).Handshake() }() // ends with the pipe
	b := make([]byte, 16<<10)
	n, err := ours.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}
