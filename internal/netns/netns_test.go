package netns_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/netns/netnstest"
)

func TestMain(m *testing.M) {
	os.Exit(netnstest.Main(func() int {
		code := m.Run()
		if err := goleak.Find(); err != nil && code == 0 {
			os.Stderr.WriteString(err.Error())
			code = 1
		}
		return code
	}))
}

func current(t *testing.T) string {
	t.Helper()
	s, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOpenRefusesWhatIsNoNamespace(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, path string
		want       error
	}{
		{"missing", filepath.Join(dir, "missing"), netns.ErrGone},
		{"process that ended", "/proc/999999999/ns/net", netns.ErrGone},
		{"below a file", filepath.Join(plain, "x"), netns.ErrGone},
		{"left behind by a bind mount", plain, netns.ErrNotNamespace},
		{"fifo", fifo, netns.ErrNotNamespace},
		{"directory", dir, netns.ErrNotNamespace},
		{"another kind of namespace", "/proc/self/ns/mnt", netns.ErrNotNamespace},
		{"proc file", "/proc/self/status", netns.ErrNotNamespace},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := netns.Open(tc.path); !errors.Is(err, tc.want) {
				t.Errorf("Open(%s) = %v, want %v", tc.path, err, tc.want)
			}
		})
	}
}

func TestFromFDClosesWhatItRefuses(t *testing.T) {
	f, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := netns.FromFD(f); !errors.Is(err, netns.ErrNotNamespace) {
		t.Fatalf("got %v", err)
	}
	if err := unix.Close(f); err != unix.EBADF {
		t.Errorf("descriptor still open: close gave %v", err)
	}
}

func TestIDsTellNamespacesApart(t *testing.T) {
	own, err := netns.Own()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	again, err := netns.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if own.ID() != again.ID() {
		t.Errorf("%v and %v are the same namespace", own.ID(), again.ID())
	}
	if other := netnstest.New(t); other.ID() == own.ID() {
		t.Errorf("%v and %v are different namespaces", other.ID(), own.ID())
	}
}

func TestDoRunsInsideAndComesBack(t *testing.T) {
	ns := netnstest.New(t)
	before := current(t)
	sentinel := errors.New("from inside")
	var inside, nested string
	other := netnstest.New(t)
	err := ns.Do(func() error {
		inside = current(t)
		if err := other.Do(func() error { nested = current(t); return nil }); err != nil {
			return err
		}
		if now := current(t); now != inside {
			t.Errorf("after a nested Do in %s, want %s", now, inside)
		}
		return sentinel
	})
	if !errors.Is(err, sentinel) {
		t.Errorf("Do = %v", err)
	}
	if inside != ns.ID().String() || nested != other.ID().String() {
		t.Errorf("ran in %s and %s, want %s and %s", inside, nested, ns.ID(), other.ID())
	}
	if now := current(t); now != before {
		t.Errorf("left in %s, want %s", now, before)
	}
}

func TestDoSurvivesGoexit(t *testing.T) {
	ns := netnstest.New(t)
	if err := ns.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("want an error")
	}
}

func TestClosedNamespace(t *testing.T) {
	ns := netnstest.New(t)
	if err := ns.Close(); err != nil {
		t.Fatal(err)
	}
	if err := ns.Do(func() error { return nil }); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Do = %v", err)
	}
	if _, err := ns.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Socket = %v", err)
	}
	_, err := netns.Dial(t.Context(), ns, netns.DialOptions{}, netip.MustParseAddrPort("127.0.0.1:1"))
	if !errors.Is(err, os.ErrClosed) {
		t.Errorf("Dial = %v", err)
	}
}

// Many goroutines open sockets in many namespaces: each socket lands where it
// should, and no thread stays behind.
func TestSocketFromManyGoroutines(t *testing.T) {
	home := current(t)
	var wg sync.WaitGroup
	for range 4 {
		ns := netnstest.New(t)
		l, err := netns.Listen(ns, "tcp", netip.MustParseAddrPort("[::]:15006"), netns.ListenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go discard(l)
		for range 4 {
			wg.Go(func() {
				for range 20 {
					c, err := netns.Dial(t.Context(), ns, netns.DialOptions{}, netip.MustParseAddrPort("127.0.0.1:15006"))
					if err != nil {
						t.Error(err)
						return
					}
					c.Close()
					if now := current(t); now != home {
						t.Errorf("thread left in %s", now)
					}
				}
			})
		}
	}
	wg.Wait()
}

// discard closes every connection that l accepts, until l is closed.
func discard(l *netns.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.Close()
	}
}

// pair gives both ends of a connection inside a fresh namespace.
func pair(t *testing.T, network, listen, dial string) (client, server *netns.Conn) {
	t.Helper()
	ns := netnstest.New(t)
	l, err := netns.Listen(ns, network, netip.MustParseAddrPort(listen), netns.ListenOptions{Mark: 0x539})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	to := netip.AddrPortFrom(netip.MustParseAddr(dial), l.AddrPort().Port())
	client, err = netns.Dial(t.Context(), ns, netns.DialOptions{Mark: 0x539, Timeout: 5 * time.Second}, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server, err = l.AcceptConn()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return client, server
}

func TestConn(t *testing.T) {
	for _, tc := range []struct{ name, network, listen, dial string }{
		{"IPv4", "tcp4", "127.0.0.1:0", "127.0.0.1"},
		{"IPv6", "tcp6", "[::1]:0", "::1"},
		{"dual stack, IPv4 peer", "tcp", "[::]:0", "127.0.0.1"},
		{"dual stack, IPv6 peer", "tcp", "0.0.0.0:0", "::1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			client, server := pair(t, tc.network, tc.listen, tc.dial)
			if got := server.RemoteAddrPort(); got != client.LocalAddrPort() || !got.IsValid() {
				t.Errorf("server sees %s, client is %s", got, client.LocalAddrPort())
			}
			if got := client.RemoteAddrPort(); got != server.LocalAddrPort() {
				t.Errorf("client sees %s, server is %s", got, server.LocalAddrPort())
			}
			exchange(t, client, server)
		})
	}
}

// exchange sends a megabyte one way, half-closes, and answers the other way.
func exchange(t *testing.T, client, server *netns.Conn) {
	t.Helper()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	var wg sync.WaitGroup
	wg.Go(func() {
		got, err := io.ReadAll(server)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("server read %d bytes, %v", len(got), err)
		}
		if _, err := server.Write([]byte("done")); err != nil {
			t.Error(err)
		}
		server.Close()
	})
	if _, err := client.Write(sent); err != nil {
		t.Error(err)
	}
	if err := client.CloseWrite(); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(client); err != nil || string(got) != "done" {
		t.Errorf("client read %q, %v", got, err)
	}
	wg.Wait()
}

func TestConnOptionsAreSetOnBothEnds(t *testing.T) {
	client, server := pair(t, "tcp", "[::]:0", "127.0.0.1")
	for name, c := range map[string]*netns.Conn{"dialled": client, "accepted": server} {
		for _, opt := range []struct {
			name             string
			level, opt, want int
		}{
			{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 180},
			{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 180},
			{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9},
			{"SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, 0x539},
		} {
			raw, err := c.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			_ = raw.Control(func(fd uintptr) {
				got, err := unix.GetsockoptInt(int(fd), opt.level, opt.opt)
				if err != nil || got != opt.want {
					t.Errorf("%s %s = %d, %v; want %d", name, opt.name, got, err, opt.want)
				}
			})
		}
	}
}

func TestResetReachesThePeer(t *testing.T) {
	client, server := pair(t, "tcp4", "127.0.0.1:0", "127.0.0.1")
	if err := client.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	client.Close()
	_, err := server.Read(make([]byte, 1))
	if !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("read = %v, want a reset", err)
	}
}

func TestErrorsAreThoseOfPackageNet(t *testing.T) {
	client, _ := pair(t, "tcp4", "127.0.0.1:0", "127.0.0.1")
	if err := client.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, err := client.Read(make([]byte, 1))
	if nerr, ok := err.(net.Error); !ok || !nerr.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("deadline: %#v", err)
	}
	client.Close()
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
	if _, err := client.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
	if err := client.CloseWrite(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("half-close after close: %v", err)
	}
	if client.LocalAddrPort().IsValid() {
		t.Error("a closed connection has no local address")
	}
}

func TestCloseWakesReaderAndAccept(t *testing.T) {
	ns := netnstest.New(t)
	l, err := netns.Listen(ns, "tcp4", netip.MustParseAddrPort("127.0.0.1:0"), netns.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	errc := make(chan error, 1)
	go func() { _, err := l.Accept(); errc <- err }()
	l.Close()
	if err := <-errc; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
	client, _ := pair(t, "tcp4", "127.0.0.1:0", "127.0.0.1")
	go func() { _, err := client.Read(make([]byte, 1)); errc <- err }()
	client.Close()
	if err := <-errc; !errors.Is(err, net.ErrClosed) {
		t.Errorf("read: %v", err)
	}
}

func TestListenFailures(t *testing.T) {
	ns := netnstest.New(t)
	any80 := netip.MustParseAddrPort("[::]:80")
	l, err := netns.Listen(ns, "tcp", any80, netns.ListenOptions{ReusePort: true})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := netns.Listen(ns, "tcp", any80, netns.ListenOptions{}); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("taken: %v", err)
	}
	second, err := netns.Listen(ns, "tcp", any80, netns.ListenOptions{ReusePort: true})
	if err != nil {
		t.Errorf("shared: %v", err)
	} else {
		second.Close()
	}
	if _, err := netns.Listen(ns, "udp", any80, netns.ListenOptions{}); err == nil {
		t.Error("udp: want an error")
	}
	if _, err := netns.Listen(ns, "tcp4", any80, netns.ListenOptions{}); err == nil {
		t.Error("tcp4 on an IPv6 address: want an error")
	}
}

// Without a rule in between, the original destination is where the client went.
func TestOriginalDstWithoutConntrack(t *testing.T) {
	client, server := pair(t, "tcp", "[::]:0", "127.0.0.1")
	_, err := netns.OriginalDst(server)
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOPROTOOPT) {
		t.Errorf("got %v", err)
	}
	client.Close()
	server.Close()
	if _, err := netns.OriginalDst(server); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
