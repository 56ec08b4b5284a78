package hbone_test

import (
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// A peer that sent its end and then went away altogether has ended the connection:
// the end that comes from the other side later is no error.
func TestRelayEndAfterThePeerWent(t *testing.T) {
	client, a := tcpPair(t)
	server, b := tcpPair(t)
	var toB, toA atomic.Int64
	done := make(chan error, 1)
	go func() { done <- hbone.Relay(a, b, &toB, &toA) }()
	if err := server.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := client.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Fatalf("read %d, %v, want the end", n, err)
	}
	if err := server.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	awaitClosed(t, b)
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("relay: %v, want an orderly end", err)
	}
}

// awaitClosed waits until the kernel has no connection behind c any more.
func awaitClosed(t *testing.T, c *net.TCPConn) {
	t.Helper()
	const tcpClose = 7 // TCP_CLOSE of the kernel's tcp_states.h
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
		var info *unix.TCPInfo
		var ierr error
		if err := raw.Control(func(fd uintptr) { info, ierr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); err != nil {
			t.Fatal(err)
		}
		if ierr != nil {
			t.Fatal(ierr)
		}
		if info.State == tcpClose {
			return
		}
	}
	t.Fatal("the reset did not arrive")
}

// tcpPair gives the two ends of a connection over loopback.
func tcpPair(t *testing.T) (dialed, accepted *net.TCPConn) {
	t.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if dialed, err = net.DialTCP("tcp", nil, ln.Addr().(*net.TCPAddr)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dialed.Close() })
	if accepted, err = ln.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = accepted.Close() })
	return dialed, accepted
}
