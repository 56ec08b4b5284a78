package netns_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/netns"
)

func TestDatagramsThereAndBack(t *testing.T) {
	l, err := netns.ListenDatagrams(nil, netip.MustParseAddrPort("127.0.0.1:0"), netns.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := netns.DialDatagrams(nil, 0, netip.MustParseAddrPort(l.LocalAddr().String()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	_ = l.SetDeadline(time.Now().Add(5 * time.Second))
	n, from, err := l.ReadFromUDPAddrPort(buf)
	if err != nil || string(buf[:n]) != "ping" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	if _, err := l.WriteToUDPAddrPort([]byte("pong"), from); err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if n, err = c.Read(buf); err != nil || string(buf[:n]) != "pong" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
}
