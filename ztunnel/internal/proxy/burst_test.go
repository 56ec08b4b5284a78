package proxy

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/masque"
)

// Whatever comes together, each datagram arrives as it was, in order.
func TestBurst(t *testing.T) {
	l, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, err := net.Dial("udp", l.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, plain := range []bool{false, true} {
		b := &burst{c: d.(*net.UDPConn), plain: plain}
		sizes := []int{10, 10, 10, 5, 7, 7, 0, 7, 9, 9, 9, 3}
		for range 70 {
			sizes = append(sizes, 100)
		}
		for i, n := range sizes {
			if err := b.add(bytes.Repeat([]byte{byte(i)}, n), i < len(sizes)-1); err != nil {
				t.Fatal(err)
			}
		}
		buf := make([]byte, 2000)
		for i, n := range sizes {
			_ = l.SetReadDeadline(time.Now().Add(time.Minute))
			m, err := l.Read(buf)
			if err != nil || !bytes.Equal(buf[:m], bytes.Repeat([]byte{byte(i)}, n)) {
				t.Fatalf("plain %v: datagram %d: %d bytes of %v, %v; want %d", plain, i, m, buf[:min(m, 1)], err, n)
			}
		}
	}
}

// What was held back for others that do not come after all is sent.
func TestBurstEndsWithoutAnother(t *testing.T) {
	l, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, err := net.Dial("udp", l.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	b := &burst{c: d.(*net.UDPConn)}
	hand := func(p []byte, more bool) {
		if err := b.add(p, more); err != nil {
			t.Fatal(err)
		}
	}
	unknown := []byte{9, 1, 2, 3} // a context that nobody agreed on
	for _, err := range []error{
		masque.EachMore(masque.AppendUDP(nil, []byte("one")), true, hand),
		masque.EachMore(unknown, true, hand),
		masque.EachMore(masque.AppendUDP(nil, nil), true, hand),
		masque.EachMore(masque.AppendUDP(nil, []byte("two")), true, hand),
		masque.EachMore(unknown, false, hand),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 100)
	for _, want := range []string{"one", "", "two"} {
		_ = l.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := l.Read(buf); err != nil || string(buf[:n]) != want {
			t.Fatalf("got %q, %v, want %q", buf[:n], err, want)
		}
	}
}
