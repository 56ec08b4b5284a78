package upstream

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"go.uber.org/goleak"
	xhttp2 "golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
)

// leaving is a server of HTTP/2 whose first connection does nothing about requests but to
// tell, when they have come whole, that it goes away. It keeps the bodies of those that
// it has answered.
type leaving struct {
	polite   bool // also the first connection serves
	mu       sync.Mutex
	accepted int      // guarded by mu
	bodies   []string // guarded by mu
}

// start gives the address, and has the server end with the test.
func (l *leaving) start(t *testing.T) netip.AddrPort {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			l.mu.Lock()
			l.accepted++
			serves := l.polite || l.accepted > 1
			l.mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				l.serve(c, serves)
			})
		}
	})
	t.Cleanup(func() { _ = listener.Close(); wg.Wait() })
	return netip.MustParseAddrPort(listener.Addr().String())
}

func (l *leaving) serve(c net.Conn, serves bool) {
	if _, err := io.ReadFull(c, make([]byte, len(xhttp2.ClientPreface))); err != nil {
		return
	}
	fr := xhttp2.NewFramer(c, c)
	_ = fr.WriteSettings()
	body := ""
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return
		}
		end := false
		switch f := f.(type) {
		case *xhttp2.HeadersFrame:
			end = f.StreamEnded()
		case *xhttp2.DataFrame:
			body += string(f.Data())
			end = f.StreamEnded()
		}
		switch {
		case !end:
		case !serves:
			_ = fr.WriteGoAway(0, xhttp2.ErrCodeNo, nil)
		default:
			l.mu.Lock()
			l.bodies = append(l.bodies, body)
			l.mu.Unlock()
			body = ""
			_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: f.Header().StreamID, EndHeaders: true, EndStream: true, BlockFragment: okay()})
		}
	}
}

// okay is a header block of :status 200, by the static table.
func okay() []byte { return []byte{0x80 | 8} }

// draining is a body that is there, and with whose beginning its connection starts to go
// away.
type draining struct {
	message.Body
	e *Endpoint
}

// Read implements message.Body.
func (d *draining) Read(p []byte) (int, error) {
	d.e.conns.mu.Lock()
	var all []*multiplexed
	for _, list := range d.e.conns.shared {
		all = append(all, list...)
	}
	d.e.conns.mu.Unlock()
	for _, c := range all[:min(1, len(all))] {
		c.Drain()
	}
	return d.Body.Read(p)
}

// A request whose connection goes away is sent by another one whole, or not at all: never
// with what is left of its body.
func TestRequestsAreSentWholeOrNotAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		polite bool
		body   func(e *Endpoint) message.Body // nil for none
		want   []string                       // bodies of the requests that were answered
		fails  bool
	}{
		"without a body":            {want: []string{""}},
		"a body that has been sent": {body: func(*Endpoint) message.Body { return message.BytesBody([]byte("all of it")) }, fails: true},
		"a body whose beginning was taken": {polite: true, want: []string{"all of it"}, body: func(e *Endpoint) message.Body {
			return &draining{message.BytesBody([]byte("all of it")), e}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() { goleak.VerifyNone(t) })
			l := &leaving{polite: tc.polite}
			c := setOf(t, l.start(t)).Cluster("ns/svc", 80)
			e, err := c.Choose(Pick{})
			if err != nil {
				t.Fatal(err)
			}
			req := &message.Request{Method: "POST", Scheme: "http", Authority: "svc", Path: "/", Version: message.HTTP2, ContentLength: -1}
			if tc.body != nil {
				req.Body = tc.body(e)
			}
			_, _, err = c.RoundTrip(t.Context(), e, &Client{}, waypoint.Protocol_PROTOCOL_HTTP2, 0, req, nil)
			var ex *message.ExchangeError
			if tc.fails && (!errors.As(err, &ex) || ex.Stage != message.Unprocessed || ex.Unread) || !tc.fails && err != nil {
				t.Errorf("%v", err)
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			if len(l.bodies) != len(tc.want) || len(tc.want) > 0 && l.bodies[0] != tc.want[0] {
				t.Errorf("the server was given %q, want %q", l.bodies, tc.want)
			}
		})
	}
}
