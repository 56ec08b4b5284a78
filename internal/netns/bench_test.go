package netns_test

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/netns/netnstest"
)

func BenchmarkSocket(b *testing.B) {
	ns := netnstest.New(b)
	b.ReportAllocs()
	for b.Loop() {
		fd, err := ns.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			b.Fatal(err)
		}
		_ = unix.Close(fd)
	}
}

// BenchmarkDial opens, accepts and closes a connection inside a namespace.
func BenchmarkDial(b *testing.B) {
	ns := netnstest.New(b)
	l, err := netns.Listen(ns, "tcp4", netip.MustParseAddrPort("127.0.0.1:0"), netns.ListenOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	b.ReportAllocs()
	for b.Loop() {
		c, err := netns.Dial(b.Context(), ns, netns.DialOptions{Mark: 0x539}, l.AddrPort())
		if err != nil {
			b.Fatal(err)
		}
		s, err := l.AcceptConn()
		if err != nil {
			b.Fatal(err)
		}
		_ = c.SetLinger(0)
		c.Close()
		s.Close()
	}
}

// BenchmarkDialNet is the same by package net, without a change of namespace.
func BenchmarkDialNet(b *testing.B) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	var d net.Dialer
	b.ReportAllocs()
	for b.Loop() {
		c, err := d.DialContext(b.Context(), "tcp4", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
		s.Close()
	}
}
