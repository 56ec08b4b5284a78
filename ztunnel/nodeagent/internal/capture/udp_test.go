package capture

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/netns"
)

// answer answers each datagram to a port of ns with "name from to".
func answer(t *testing.T, ns *netns.Namespace, name string, port uint16, opts netns.UDPOptions) {
	t.Helper()
	c, err := netns.ListenUDP(ns, netip.AddrPortFrom(netip.IPv6Unspecified(), port), opts)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		c.Close()
		wg.Wait()
	})
	wg.Go(func() {
		buf, oob := make([]byte, 1500), make([]byte, netns.OriginalDstSpace)
		for {
			_, n, _, from, err := c.ReadMsgUDPAddrPort(buf, oob)
			if err != nil {
				return
			}
			from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			to := netns.OriginalDstOf(oob[:n])
			text := fmt.Appendf(nil, "%s %s %s", name, from, to)
			if !to.IsValid() {
				if _, err := c.WriteToUDPAddrPort(text, from); err != nil {
					t.Errorf("%s answers %s: %v", name, from, err)
				}
				continue
			}
			// As ztunnel does: from the address that was asked for.
			back, err := netns.OpenRawUDP(ns, to, from, netns.UDPOptions{Mark: ProxyMark})
			if err != nil {
				t.Errorf("%s answers %s: %v", name, from, err)
				continue
			}
			_, _ = back.Write(text)
			back.Close()
		}
	})
}

// ask sends a datagram and gives the answer.
func ask(t *testing.T, ns *netns.Namespace, source string, opts netns.UDPOptions, dst string) (string, error) {
	t.Helper()
	var from netip.AddrPort
	if source != "" {
		from = netip.MustParseAddrPort(source)
	}
	c, err := netns.DialUDP(ns, from, netip.MustParseAddrPort(dst), opts)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return exchange(c)
}

func exchange(c *net.UDPConn) (string, error) {
	if _, err := c.Write([]byte("x")); err != nil {
		return "", err
	}
	if err := c.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return "", err
	}
	buf := make([]byte, 1500)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

func TestWhichDatagramsAreRedirected(t *testing.T) {
	b := newBed(t)
	listens := netns.UDPOptions{Mark: ProxyMark, Transparent: true, OriginalDst: true, Shared: true}
	answer(t, b.pod, "app", 80, netns.UDPOptions{})
	answer(t, b.pod, "outbound", OutboundPort, listens) // to which the app's port is taken
	answer(t, b.pod, "tunnel", TunnelPort, netns.UDPOptions{Mark: ProxyMark})
	answer(t, b.peer, "peer", 80, netns.UDPOptions{})
	b.capture(t)
	proxy, delivered := netns.UDPOptions{Mark: ProxyMark}, netns.UDPOptions{Mark: ProxyMark, Transparent: true}
	for _, tc := range []struct {
		name, source string
		ns           *netns.Namespace
		opts         netns.UDPOptions
		dst, want    string
	}{
		{"outbound IPv4", "", b.pod, netns.UDPOptions{}, "10.9.0.1:80", "outbound"},
		{"outbound IPv6", "", b.pod, netns.UDPOptions{}, "[fd00:9::1]:80", "outbound"},
		{"outbound, to nobody", "", b.pod, netns.UDPOptions{}, "192.0.2.7:5300", "outbound"},
		{"tunnel IPv4", "", b.peer, netns.UDPOptions{}, "10.9.0.2:15008", "tunnel"},
		{"tunnel IPv6", "", b.peer, netns.UDPOptions{}, "[fd00:9::2]:15008", "tunnel"},
		{"ztunnel to the world IPv4", "", b.pod, proxy, "10.9.0.1:80", "peer"},
		{"ztunnel to the world IPv6", "", b.pod, proxy, "[fd00:9::1]:80", "peer"},
		{"loopback", "", b.pod, netns.UDPOptions{}, "127.0.0.1:80", "app"},
		{"loopback IPv6", "", b.pod, netns.UDPOptions{}, "[::1]:80", "app"},
		{"own address", "", b.pod, netns.UDPOptions{}, "10.9.0.2:80", "app"},
		{"own address IPv6", "", b.pod, netns.UDPOptions{}, "[fd00:9::2]:80", "app"},
		{"probe", "169.254.7.127:4000", b.peer, netns.UDPOptions{}, "10.9.0.2:80", "app"},
		{"delivery IPv4", "203.0.113.5:4000", b.pod, delivered, "10.9.0.2:80", "app"},
		{"delivery IPv6", "[2001:db8::5]:4000", b.pod, delivered, "[fd00:9::2]:80", "app"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ask(t, tc.ns, tc.source, tc.opts, tc.dst)
			if err != nil || !strings.HasPrefix(got, tc.want+" ") {
				t.Fatalf("%q, %v; want it from %s", got, err, tc.want)
			}
			if tc.want == "outbound" && !strings.HasSuffix(got, " "+tc.dst) {
				t.Errorf("%q: want %s as where it was going", got, tc.dst)
			}
			if tc.source != "" && !strings.Contains(got, tc.source) {
				t.Errorf("%q: want it to see %s", got, tc.source)
			}
		})
	}
}

// A datagram that came as it is is handed on with the plain mark, and the answer
// finds its way by itself.
func TestPlainDatagrams(t *testing.T) {
	for _, dst := range []string{"10.9.0.2:80", "[fd00:9::2]:80"} {
		b := newBed(t)
		answer(t, b.pod, "app", 80, netns.UDPOptions{})
		l, err := netns.ListenUDP(b.pod, netip.AddrPortFrom(netip.IPv6Unspecified(), InboundPort), netns.UDPOptions{Mark: ProxyMark, Transparent: true, OriginalDst: true})
		if err != nil {
			t.Fatal(err)
		}
		b.capture(t)
		seen := make(chan netip.AddrPort, 1)
		var wg sync.WaitGroup
		wg.Go(func() {
			buf, oob := make([]byte, 1500), make([]byte, netns.OriginalDstSpace)
			n, on, _, from, err := l.ReadMsgUDPAddrPort(buf, oob)
			if err != nil {
				return
			}
			from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			to := netns.OriginalDstOf(oob[:on])
			seen <- to
			c, err := netns.DialUDP(b.pod, from, to, netns.UDPOptions{Mark: PlainMark, Transparent: true, Shared: true})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_, _ = c.Write(buf[:n])
		})
		got, err := ask(t, b.peer, "", netns.UDPOptions{}, dst)
		if err != nil || !strings.HasPrefix(got, "app ") {
			t.Errorf("%s: %q, %v", dst, got, err)
		}
		l.Close()
		wg.Wait()
		select {
		case to := <-seen:
			if to.String() != dst {
				t.Errorf("was going to %s, want %s", to, dst)
			}
		default:
			t.Errorf("%s: the proxy did not see it", dst)
		}
	}
}

// A flow that ztunnel answers keeps going through one connected socket.
func TestConnectedSocketTakesTheRest(t *testing.T) {
	b := newBed(t)
	l, err := netns.ListenUDP(b.pod, netip.AddrPortFrom(netip.IPv6Unspecified(), OutboundPort), netns.UDPOptions{Mark: ProxyMark, Transparent: true, OriginalDst: true})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b.capture(t)
	for _, dst := range []string{"10.9.0.1:7", "[fd00:9::1]:7"} {
		app, err := netns.DialUDP(b.pod, netip.AddrPort{}, netip.MustParseAddrPort(dst), netns.UDPOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer app.Close()
		_, _ = app.Write([]byte("first"))
		buf, oob := make([]byte, 1500), make([]byte, netns.OriginalDstSpace)
		_ = l.SetReadDeadline(time.Now().Add(20 * time.Second))
		_, on, _, from, err := l.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			t.Fatal(err)
		}
		c, err := netns.DialUDP(b.pod, netns.OriginalDstOf(oob[:on]), from, netns.UDPOptions{Mark: ProxyMark, Transparent: true, Shared: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for i := range 3 {
			_, _ = fmt.Fprintf(app, "%d", i)
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
			n, err := c.Read(buf)
			if err != nil || string(buf[:n]) != fmt.Sprint(i) {
				t.Fatalf("%s: read %q, %v", dst, buf[:n], err)
			}
			_, _ = c.Write([]byte("back"))
			_ = app.SetReadDeadline(time.Now().Add(20 * time.Second))
			if n, err := app.Read(buf); err != nil || string(buf[:n]) != "back" {
				t.Fatalf("%s: answer %q, %v", dst, buf[:n], err)
			}
		}
	}
}
