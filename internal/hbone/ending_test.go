package hbone_test

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/hbonetest"
)

// A stream that breaks while its sender waits for window is a reset for the
// application, never an orderly end of what came so far.
func TestBrokenStreamIsNeverAnOrderlyEnd(t *testing.T) {
	for range 50 {
		tn := newTunnel(t, hbone.Config{}, byAuthority)
		seen, first := make(chan error, 1), make(chan struct{})
		app := listen(t, func(_ context.Context, c net.Conn) {
			_, _ = c.Write(make([]byte, 100_000))
			close(first)
			_, err := c.Read(make([]byte, 1))
			seen <- err
		})
		p := tn.dialPeer(t)
		p.Accepted(1, app)
		got := 0
		p.Until("a full window", func(f http2.Frame) bool {
			if d, ok := f.(*http2.DataFrame); ok {
				got += len(d.Data())
			}
			return got == 65535
		})
		<-first
		p.OK(p.Framer.WriteRSTStream(1, http2.ErrCodeCancel))
		if err := <-seen; !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("the application saw %v, want a reset", err)
		}
		p.Conn.Close()
	}
}

func TestEndsOfStreams(t *testing.T) {
	type ends struct {
		say   func(p *hbonetest.Peer)
		app   func(c *net.TCPConn) error // what the application sees, after "hello"
		want  error                      // from the application
		reset http2.ErrCode              // at the peer; 0 for none
	}
	read := func(c *net.TCPConn) error { _, err := c.Read(make([]byte, 1)); return err }
	for name, tc := range map[string]ends{
		"both end": {
			say:  func(p *hbonetest.Peer) { p.OK(p.Framer.WriteData(1, true, nil)) },
			app:  read,
			want: io.EOF,
		},
		"the peer resets": {
			say:  func(p *hbonetest.Peer) { p.OK(p.Framer.WriteRSTStream(1, http2.ErrCodeCancel)) },
			app:  read,
			want: syscall.ECONNRESET,
		},
		"the peer resets without error before its end": {
			say:  func(p *hbonetest.Peer) { p.OK(p.Framer.WriteRSTStream(1, http2.ErrCodeNo)) },
			app:  read,
			want: syscall.ECONNRESET,
		},
		"the peer resets without error after its end": {
			say: func(p *hbonetest.Peer) {
				p.OK(p.Framer.WriteData(1, true, nil))
				p.OK(p.Framer.WriteRSTStream(1, http2.ErrCodeNo))
			},
			app:  read,
			want: io.EOF,
		},
		"the peer resets with an error after its end": {
			say: func(p *hbonetest.Peer) {
				p.OK(p.Framer.WriteData(1, true, nil))
				p.OK(p.Framer.WriteRSTStream(1, http2.ErrCodeInternal))
			},
			app: func(c *net.TCPConn) error {
				err := read(c)
				if err == io.EOF { // the end was passed on before the reset came
					_, err = c.Write([]byte("x"))
					for err == nil {
						_, err = c.Write([]byte("x"))
					}
					if errors.Is(err, syscall.EPIPE) {
						err = syscall.ECONNRESET
					}
				}
				return err
			},
			want: syscall.ECONNRESET,
		},
		"the peer hangs up": {
			say:  func(p *hbonetest.Peer) { p.Conn.Close() },
			app:  read,
			want: syscall.ECONNRESET,
		},
		"the peer goes away with an error": {
			say:  func(p *hbonetest.Peer) { p.OK(p.Framer.WriteGoAway(0, http2.ErrCodeInternal, []byte("sorry"))) },
			app:  read,
			want: syscall.ECONNRESET,
		},
		"the application resets": {
			say: func(*hbonetest.Peer) {},
			app: func(c *net.TCPConn) error {
				_ = c.SetLinger(0)
				return c.Close()
			},
			reset: http2.ErrCodeCancel,
		},
		"the application resets after the peer's end": {
			say: func(p *hbonetest.Peer) { p.OK(p.Framer.WriteData(1, true, nil)) },
			app: func(c *net.TCPConn) error {
				err := read(c)
				_ = c.SetLinger(0)
				_ = c.Close()
				return err
			},
			want:  io.EOF,
			reset: http2.ErrCodeCancel,
		},
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan *hbone.Stream, 1)
			tn := newTunnel(t, hbone.Config{}, func(ctx context.Context, in *hbone.Incoming) {
				connectHandler(ctx, in)
				ended <- in.Stream()
			})
			saw := make(chan error, 1)
			p := tn.dialPeer(t)
			p.Accepted(1, listen(t, func(_ context.Context, c net.Conn) {
				_, _ = io.ReadFull(c, make([]byte, 5))
				saw <- nil
				saw <- tc.app(c.(*net.TCPConn))
			}))
			p.OK(p.Framer.WriteData(1, false, []byte("hello")))
			<-saw
			tc.say(p)
			if err := <-saw; !errors.Is(err, tc.want) {
				t.Errorf("the application saw %v, want %v", err, tc.want)
			}
			s := <-ended
			orderly := tc.reset == 0 && !errors.Is(tc.want, syscall.ECONNRESET)
			if err := s.Err(); (err == nil) != orderly {
				t.Errorf("the stream ended with %v", err)
			}
			if tc.reset != 0 {
				p.WantReset(1, tc.reset)
			}
		})
	}
}

// What the peer sends after its reset was heard is refused, and nothing of ours
// follows our own reset.
func TestNothingFollowsAReset(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, func(ctx context.Context, in *hbone.Incoming) {
		s := in.Stream()
		time.AfterFunc(time.Millisecond, func() { s.Reset(hbone.CodeCancel) })
		connectHandler(ctx, in)
	})
	app := listen(t, func(_ context.Context, c net.Conn) {
		for {
			if _, err := c.Write(make([]byte, 4<<10)); err != nil {
				return
			}
		}
	})
	p := tn.dialPeer(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	p.OK(p.Framer.WriteWindowUpdate(0, 1<<30))
	over := make(map[uint32]bool)
	p.Seen = func(f http2.Frame) {
		id := f.Header().StreamID
		if over[id] {
			t.Fatalf("%v follows RST_STREAM", f)
		}
		if _, ok := f.(*http2.RSTStreamFrame); ok {
			over[id] = true
		}
	}
	for id := uint32(1); id < 200; id += 2 {
		p.Connect(id, app)
	}
	p.Until("the end of all", func(http2.Frame) bool { return len(over) == 100 })
	p.Alive()
}

func TestConnectionEndsWithItsReason(t *testing.T) {
	for _, tc := range []struct {
		name string
		say  func(p *hbonetest.Peer)
		want string
	}{
		{"GOAWAY with an error", func(p *hbonetest.Peer) { p.OK(p.Framer.WriteGoAway(0, http2.ErrCodeInternal, []byte("sorry"))) }, `tunnel: peer sent GOAWAY INTERNAL_ERROR "sorry"`},
		{"GOAWAY with a long story", func(p *hbonetest.Peer) { p.OK(p.Framer.WriteGoAway(0, http2.ErrCodeInternal, make([]byte, 9000))) }, `tunnel: peer sent GOAWAY INTERNAL_ERROR`},
		{"the peer closes", func(p *hbonetest.Peer) { p.Conn.Close() }, "tunnel connection closed by peer: unexpected EOF"},
		{"the peer breaks the protocol", func(p *hbonetest.Peer) { p.Write(hbonetest.Raw(6, 0, 1)) }, "tunnel: FRAME_SIZE_ERROR: frame type 6 of 0 bytes, want 8"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tn := newTunnel(t, hbone.Config{}, byAuthority)
			ran := make(chan error, 1)
			addr := listen(t, func(ctx context.Context, c net.Conn) {
				sc, err := hbone.NewServerConn(ctx, c, tn.server, hbone.Config{}, byAuthority)
				if err == nil {
					err = sc.Run(ctx)
				}
				ran <- err
			})
			tn.addr = addr
			p := tn.dialPeer(t)
			p.Accepted(1, "parked:1")
			tc.say(p)
			err := <-ran
			if err == nil || len(err.Error()) > 5000 || !hasPrefix(err, tc.want) {
				t.Fatalf("Run gave %v, want %s", err, tc.want)
			}
		})
	}
}

func hasPrefix(err error, want string) bool {
	return len(err.Error()) >= len(want) && err.Error()[:len(want)] == want
}

func TestServerCloseTellsThePeer(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, byAuthority)
	p := tn.dialPeer(t)
	p.Accepted(1, "parked:1")
	(<-tn.conns).Close("the drain time is over")
	p.WantGoAway(http2.ErrCodeNo)
}

func TestServerDrainTakesWhatIsUnderWay(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, byAuthority)
	p := tn.dialPeer(t)
	p.Accepted(1, "parked:1")
	sc := <-tn.conns
	sc.Drain()
	last := uint32(0)
	goAway := func(f http2.Frame) bool {
		g, ok := f.(*http2.GoAwayFrame)
		if ok {
			last = g.LastStreamID
		}
		return ok
	}
	p.Until("GOAWAY", goAway)
	if last != 1<<31-1 {
		t.Fatalf("the first GOAWAY names stream %d, want the largest", last)
	}
	p.Accepted(3, "parked:1")                                        // not refused: it was on its way
	p.OK(p.Framer.WritePing(true, [8]byte{'l', 'e', 'a', 'v', 'e'})) // the answer to what came with it
	p.Until("the last GOAWAY", goAway)
	if last != 3 {
		t.Fatalf("the last GOAWAY names stream %d, want 3", last)
	}
	p.Connect(5, "parked:1")
	p.WantReset(5, http2.ErrCodeRefusedStream)
	p.OK(p.Framer.WriteRSTStream(1, http2.ErrCodeCancel))
	p.Alive()
	p.OK(p.Framer.WriteRSTStream(3, http2.ErrCodeCancel))
	if _, err := p.Framer.ReadFrame(); err != io.EOF {
		t.Fatalf("after the last stream: %v, want the end", err)
	}
}
