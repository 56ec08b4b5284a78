package hbone3_test

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/hbonetest"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/masque"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

// byAuthority lets the peer choose what becomes of its stream.
func byAuthority(ctx context.Context, in *hbone3.Incoming) {
	switch {
	case in.Protocol != "" && in.Protocol != masque.Protocol:
		in.Refuse(501, "")
	case in.Authority == "parked:1":
		if s, err := in.Accept(); err == nil {
			_ = s.ReceivePayloads(func(b []byte, _ bool) error { return s.SendPayload(b) })
		}
	case in.Authority == "undecided:1":
		<-ctx.Done()
	case in.Authority == "silent:1":
	default:
		in.Refuse(503, hbone.ProxyStatus("connection_refused", "as asked"))
	}
}

func (tn *tunnel) udpAddr() net.Addr { return net.UDPAddrFromAddrPort(tn.addr) }

func (tn *tunnel) peer(t *testing.T) *hbonetest.QUICPeer {
	t.Helper()
	p := hbonetest.DialQUIC(t, tn.tr, tn.udpAddr(), tn.client)
	p.Hello()
	return p
}

// Each kind of peer that has no business here gets the alert that says why, and the
// server says who it was.
func TestServerAnswersBadHandshakesWithTheirAlert(t *testing.T) {
	var u turns
	tn := newTunnel(t, u.config(hbone3.Config{}), func(context.Context, *hbone3.Incoming) { t.Error("a stream got through") })
	id := identity.ID{TrustDomain: identity.DefaultTrustDomain, Namespace: "shop", ServiceAccount: "client"}
	tried := 0
	for _, h := range hbonetest.BadHandshakes(t, tn.ca, id, tn.client) {
		t.Run(h.Name, func(t *testing.T) {
			if h.RefusedOverQUIC(t, tn.tr, tn.udpAddr()) {
				tried++
			}
		})
	}
	testkit.Until(t, "all of them are named", func() bool {
		u.mu.Lock()
		defer u.mu.Unlock()
		return len(u.failed) == tried
	})
	all := strings.Join(u.failed, "\n")
	for _, want := range []string{"didn't provide a certificate", "certificate has expired", "unknown authority", "another trust domain", "authority's", "unsupported application protocols"} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing says %q in\n%s", want, all)
		}
	}
}

func TestRequestsGetTheirAnswers(t *testing.T) {
	tn := newTunnel(t, hbone3.Config{}, byAuthority)
	for _, tc := range []struct {
		name           string
		fields         []string
		status, reason string
	}{
		{"GET", []string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "x:1"}, "400", `http_request_error; details="method must be CONNECT"`},
		{"CONNECT-IP", []string{":method", "CONNECT", ":protocol", "connect-ip", ":scheme", "https", ":path", "/", ":authority", "x:1"}, "501", ""},
		{"a handler without an answer", []string{":method", "CONNECT", ":authority", "silent:1"}, "503", ""},
		{"fields too large", []string{":method", "CONNECT", ":authority", "x:1", "baggage", strings.Repeat("a", 17<<10)}, "431", ""},
		{"a header block too large", []string{":method", "CONNECT", ":authority", "x:1", "a", strings.Repeat("\xff", 40<<10)}, "431", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := tn.peer(t)
			p.Refused(p.Stream(p.Headers(tc.fields...)), tc.status, tc.reason)
			p.Accepted("parked:1") // others go on
		})
	}
}

func TestViolationsEndTheStream(t *testing.T) {
	tn := newTunnel(t, hbone3.Config{}, byAuthority)
	for _, tc := range []struct {
		name string
		say  func(p *hbonetest.QUICPeer) []byte
		want http3.ErrCode
	}{
		{"no authority", func(p *hbonetest.QUICPeer) []byte { return p.Headers(":method", "CONNECT") }, http3.ErrCodeMessageError},
		{"CONNECT with a path", func(p *hbonetest.QUICPeer) []byte {
			return p.Headers(":method", "CONNECT", ":authority", "x:1", ":path", "/", ":scheme", "https")
		}, http3.ErrCodeMessageError},
		{"two methods", func(p *hbonetest.QUICPeer) []byte {
			return p.Headers(":method", "CONNECT", ":method", "GET", ":authority", "x:1")
		}, http3.ErrCodeMessageError},
		{"no fields at all", func(p *hbonetest.QUICPeer) []byte { return p.Headers() }, http3.ErrCodeQPACKDecompressionFailed},
		{"upper case", func(p *hbonetest.QUICPeer) []byte {
			return p.Headers(":method", "CONNECT", ":authority", "x:1", "A", "b")
		}, http3.ErrCodeMessageError},
		{"line feed", func(p *hbonetest.QUICPeer) []byte {
			return p.Headers(":method", "CONNECT", ":authority", "x:1", "a", "b\nc")
		}, http3.ErrCodeMessageError},
		{"broken QPACK", func(*hbonetest.QUICPeer) []byte {
			return hbonetest.Frame(hbonetest.FrameHeaders, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
		}, http3.ErrCodeQPACKDecompressionFailed},
		{"QPACK with a dynamic table that nobody allowed", func(*hbonetest.QUICPeer) []byte {
			return hbonetest.Frame(hbonetest.FrameHeaders, []byte{0x02, 0x00, 0x80})
		}, http3.ErrCodeQPACKDecompressionFailed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := tn.peer(t)
			p.WantReset(p.Stream(tc.say(p)), tc.want)
			p.Accepted("parked:1")
		})
	}
}

func TestViolationsEndTheConnection(t *testing.T) {
	tn := newTunnel(t, hbone3.Config{}, byAuthority)
	for _, tc := range []struct {
		name string
		say  func(p *hbonetest.QUICPeer)
		want http3.ErrCode
	}{
		{"DATA first", func(p *hbonetest.QUICPeer) { p.Stream(hbonetest.Frame(hbonetest.FrameData, []byte("x"))) }, http3.ErrCodeFrameUnexpected},
		{"SETTINGS on a request stream", func(p *hbonetest.QUICPeer) { p.Stream(hbonetest.Frame(hbonetest.FrameSettings, nil)) }, http3.ErrCodeFrameUnexpected},
		{"a frame of HTTP/2", func(p *hbonetest.QUICPeer) { p.Stream(hbonetest.Frame(0x06, make([]byte, 8))) }, http3.ErrCodeFrameUnexpected},
		{"a second control stream", func(p *hbonetest.QUICPeer) { p.Hello() }, http3.ErrCodeStreamCreationError},
		{"a push stream", func(p *hbonetest.QUICPeer) { p.Uni(hbonetest.StreamPush, nil) }, http3.ErrCodeStreamCreationError},
		{"a datagram without a stream", func(p *hbonetest.QUICPeer) { p.OK(p.Conn.SendDatagram(nil)) }, http3.ErrCodeDatagramError},
		{"a datagram of a stream that cannot be", func(p *hbonetest.QUICPeer) {
			p.OK(p.Conn.SendDatagram([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}))
		}, http3.ErrCodeDatagramError},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := tn.peer(t)
			p.Accepted("parked:1")
			tc.say(p)
			p.WantClosed(tc.want)
		})
	}
	t.Run("the control stream ends", func(t *testing.T) {
		p := hbonetest.DialQUIC(t, tn.tr, tn.udpAddr(), tn.client)
		s := p.Hello()
		p.Accepted("parked:1")
		p.OK(s.Close())
		p.WantClosed(http3.ErrCodeClosedCriticalStream)
	})
	t.Run("no SETTINGS", func(t *testing.T) {
		p := hbonetest.DialQUIC(t, tn.tr, tn.udpAddr(), tn.client)
		p.Uni(hbonetest.StreamControl, hbonetest.Frame(0x07, []byte{0}))
		p.WantClosed(http3.ErrCodeMissingSettings)
	})
}

// Datagrams of streams that are not there, payloads of contexts that nobody agreed
// on, and streams of unknown types harm nothing.
func TestWhatMustBeTolerated(t *testing.T) {
	tn := newTunnel(t, hbone3.Config{}, byAuthority)
	p := tn.peer(t)
	s := p.Accepted("parked:1")
	for i := range 2000 {
		_ = p.Conn.SendDatagram([]byte{byte(i) & 0x3f, 0xff}) // as many as the path takes
	}
	for range 100 {
		u := p.Uni(0x21+0x1f*7, []byte("grease"))
		u.CancelWrite(0)
	}
	_, err := s.Write(hbonetest.Frame(0x21, []byte("grease")))
	p.OK(err)
	p.Accepted("parked:1")
}

// Streams that are opened and reset at once leave no more handlers behind than twice
// what a peer may have open, and nothing when the connection ends.
func TestRapidReset(t *testing.T) {
	var running, most atomic.Int64
	tn := newTunnel(t, hbone3.Config{MaxStreams: 16}, func(ctx context.Context, in *hbone3.Incoming) {
		n := running.Add(1)
		defer running.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		byAuthority(ctx, in)
	})
	bystander := tn.peer(t)
	bystander.Accepted("parked:1")
	before := runtime.NumGoroutine()
	p := tn.peer(t)
	for range 3000 {
		s := p.Connect("undecided:1")
		s.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
		s.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
	}
	if n := most.Load(); n > 2*16+1 {
		t.Errorf("%d handlers at a time", n)
	}
	bystander.Accepted("parked:1")
	p.OK(p.Conn.CloseWithError(0, ""))
	testkit.Until(t, "everything is given back", func() bool { return running.Load() == 2 && runtime.NumGoroutine() <= before+10 })
}

// Streams whose requests never come to an end are no more than a peer may have, and
// others are served.
func TestEndlessRequests(t *testing.T) {
	tn := newTunnel(t, hbone3.Config{MaxStreams: 16}, byAuthority)
	p := tn.peer(t)
	for range 16 {
		p.Stream(hbonetest.Frame(hbonetest.FrameHeaders, make([]byte, 1000))[:20])
	}
	if _, err := p.Conn.OpenStream(); err == nil {
		t.Error("a stream beyond the limit was opened")
	}
	tn.peer(t).Accepted("parked:1")
}

// What is sent from elsewhere in the name of a connection, or again, or is no packet
// of any, harms nothing and is not answered with more than it was.
func TestForgedPackets(t *testing.T) {
	tn := newTunnel(t, hbone3.Config{}, byAuthority)
	nat := newRebinder(t, tn.addr)
	var mu sync.Mutex
	var seen [][]byte
	nat.mu.Lock()
	nat.tap = func(b []byte) {
		mu.Lock()
		defer mu.Unlock()
		if len(seen) < 200 {
			seen = append(seen, append([]byte(nil), b...))
		}
	}
	nat.mu.Unlock()
	p := hbonetest.DialQUIC(t, tn.tr, net.UDPAddrFromAddrPort(nat.addr), tn.client)
	p.Hello()
	p.Accepted("parked:1")
	for range 5 {
		p.Accepted("parked:1")
	}
	tr, forger := onFirst(t, "127.0.0.2", 1<<20)
	defer tr.Close()
	var answers sync.WaitGroup
	answers.Go(func() {
		b := make([]byte, 2000)
		for {
			if _, _, err := forger.ReadFrom(b); err != nil {
				return
			}
		}
	})
	defer answers.Wait()
	defer forger.Close()
	send := func(b []byte) {
		if _, err := forger.WriteTo(b, tn.udpAddr()); err != nil {
			t.Error(err)
		}
	}
	mu.Lock()
	real := slices.Clone(seen)
	mu.Unlock()
	for _, b := range real {
		if len(b) == 0 || b[0]&0x80 != 0 {
			continue // first packets may begin a connection of their own
		}
		send(b) // again, from elsewhere
		for i := range len(b) {
			if i%7 == 0 && i > 4 { // changed, with the connection's identifier left
				c := append([]byte(nil), b...)
				c[i] ^= 0x40
				send(c)
			}
		}
		send(b[:len(b)/2])
	}
	for i := range 500 {
		send(append([]byte{0x40 | byte(i&0x3f)}, make([]byte, i*2)...))                                   // of no connection
		send(append([]byte{0xc0 | byte(i&0x3f), byte(i), byte(i >> 4), 3, 4, 8}, make([]byte, 600+i)...)) // of an unknown version
		send(append([]byte{0xc0, 0, 0, 0, 1, 8}, make([]byte, 1300)...))                                  // a first packet that is none
	}
	p.Accepted("parked:1")
	if sent, got := forger.bytes(); got > 3*sent {
		t.Errorf("%d bytes were answered to %d", got, sent)
	}
	if where := fmt.Sprint(p.Conn.RemoteAddr()); where != nat.addr.String() {
		t.Errorf("the connection has moved to %s", where)
	}
}
