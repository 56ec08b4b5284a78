package netns_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/netns/netnstest"
)

func TestDialFailures(t *testing.T) {
	ns := netnstest.New(t)
	peer := netnstest.New(t)
	prefix := netip.MustParsePrefix
	netnstest.Veth(t,
		netnstest.End{NS: ns, Link: "eth0", Addrs: []netip.Prefix{prefix("10.1.0.1/24")}},
		netnstest.End{NS: peer, Link: "eth0", Addrs: []netip.Prefix{prefix("10.1.0.2/24")}})
	// Nobody answers for this neighbour: SYNs are never answered.
	hole := "10.1.0.77:80"
	for _, tc := range []struct {
		name, dst string
		opts      netns.DialOptions
		want      error
	}{
		{"refused", "10.1.0.2:80", netns.DialOptions{}, unix.ECONNREFUSED},
		{"refused on loopback", "127.0.0.1:80", netns.DialOptions{}, unix.ECONNREFUSED},
		{"no route", "192.0.2.1:80", netns.DialOptions{}, unix.ENETUNREACH},
		{"black hole", hole, netns.DialOptions{Timeout: 50 * time.Millisecond}, os.ErrDeadlineExceeded},
		{"families differ", "10.1.0.2:80", netns.DialOptions{Source: netip.MustParseAddrPort("[fd00::1]:0")}, nil},
		{"no port", "10.1.0.2:0", netns.DialOptions{}, nil},
		{"named zone", "[fe80::1%eth0]:80", netns.DialOptions{}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := netns.Dial(t.Context(), ns, tc.opts, netip.MustParseAddrPort(tc.dst))
			if err == nil {
				c.Close()
				t.Fatal("connected")
			}
			if _, ok := errors.AsType[*net.OpError](err); !ok || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(20*time.Millisecond, cancel)
		if _, err := netns.Dial(ctx, ns, netns.DialOptions{}, netip.MustParseAddrPort(hole)); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if _, err := netns.Dial(ctx, ns, netns.DialOptions{}, netip.MustParseAddrPort(hole)); !errors.Is(err, context.Canceled) {
			t.Errorf("already cancelled: got %v", err)
		}
	})
}

// A connection that is answered late is one that waited in the poller.
func TestDialWaitsForASlowPeer(t *testing.T) {
	ns, peer := netnstest.New(t), netnstest.New(t)
	prefix := netip.MustParsePrefix
	netnstest.Veth(t,
		netnstest.End{NS: ns, Link: "eth0", Addrs: []netip.Prefix{prefix("10.1.0.1/24")}},
		netnstest.End{NS: peer, Link: "eth0"})
	l, err := netns.Listen(peer, "tcp", netip.MustParseAddrPort("[::]:80"), netns.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	time.AfterFunc(50*time.Millisecond, func() {
		h := netnstest.Handle(t, peer)
		link, err := h.LinkByName("eth0")
		if err != nil {
			t.Error(err)
			return
		}
		if err := h.AddrAdd(link, mustAddr(t, "10.1.0.2/24")); err != nil {
			t.Error(err)
		}
	})
	c, err := netns.Dial(t.Context(), ns, netns.DialOptions{Timeout: 20 * time.Second}, netip.MustParseAddrPort("10.1.0.2:80"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.AcceptConn()
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, c, s)
}

func TestDialFromAForeignSource(t *testing.T) {
	for _, tc := range []struct{ name, src, dst string }{
		{"IPv4", "127.9.9.9:0", "127.0.0.1"},
		{"IPv4 with a port", "127.9.9.9:7777", "127.0.0.1"},
		{"IPv6", "[fd77::9]:0", "::1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ns := netnstest.New(t)
			localEverything(t, ns)
			l, err := netns.Listen(ns, "tcp", netip.MustParseAddrPort("[::]:0"), netns.ListenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			dst := netip.AddrPortFrom(netip.MustParseAddr(tc.dst), l.AddrPort().Port())
			src := netip.MustParseAddrPort(tc.src)
			c, err := netns.Dial(t.Context(), ns, netns.DialOptions{Source: src, Timeout: 5 * time.Second}, dst)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			s, err := l.AcceptConn()
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			got := s.RemoteAddrPort()
			if got.Addr() != src.Addr() || src.Port() != 0 && got != src {
				t.Errorf("server sees %s, want %s", got, src)
			}
			exchange(t, c, s)
		})
	}
}
