package segment

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, network, addr string) (*Conn, *net.UDPAddr) {
	t.Helper()
	a, err := net.ResolveUDPAddr(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenUDP(network, a)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	to := c.LocalAddr().(*net.UDPAddr)
	if to.IP.IsUnspecified() {
		to = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: to.Port}
	}
	return s, to
}

// oobOf says how large packets are, before another message, as quic-go does.
func oobOf(size int) []byte {
	ecn := make([]byte, unix.CmsgSpace(4))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&ecn[0]))
	h.Level, h.Type = unix.IPPROTO_IP, unix.IP_TOS
	h.SetLen(unix.CmsgLen(4))
	binary.NativeEndian.PutUint32(ecn[unix.CmsgLen(0):], 2)
	return append(segmentSize(nil, size), ecn...)
}

// packet is one that can be told from others.
func packet(i, size int) []byte {
	p := bytes.Repeat([]byte{byte(i)}, size)
	binary.BigEndian.PutUint32(p, uint32(i))
	return p
}

// receiveAll reads n packets.
func receiveAll(t *testing.T, s *Conn, n int) (got [][]byte, from []net.Addr) {
	t.Helper()
	ms := make([]ipv4.Message, 8)
	for i := range ms {
		ms[i].Buffers, ms[i].OOB = [][]byte{make([]byte, 1500)}, make([]byte, 128)
	}
	_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
	for len(got) < n {
		m, err := s.ReadBatch(ms, 0)
		if err != nil {
			t.Fatalf("after %d packets: %v", len(got), err)
		}
		for i := range ms[:m] {
			got = append(got, bytes.Clone(ms[i].Buffers[0][:ms[i].N]))
			from = append(from, ms[i].Addr)
		}
	}
	return got, from
}

// What is written comes as it was, in order, whatever the sizes, whether alone, close
// behind others or as a group.
func TestPacketsStayWhatTheyAre(t *testing.T) {
	for _, family := range []struct{ name, network, addr string }{{"IPv4", "udp4", "127.0.0.1:0"}, {"both", "udp", ":0"}, {"IPv6", "udp6", "[::1]:0"}} {
		t.Run(family.name, func(t *testing.T) {
			from, own := open(t, family.network, family.addr)
			s, to := open(t, family.network, family.addr)
			var want [][]byte
			write := func(b []byte, size int) {
				t.Helper()
				if n, _, err := from.WriteMsgUDP(b, oobOf(size), to); err != nil || n != len(b) {
					t.Fatal(n, err)
				}
				for p := range slices.Chunk(b, size) {
					want = append(want, bytes.Clone(p))
				}
			}
			for i := range 60 { // what the smallest buffer of a socket takes
				size := []int{1200, 1200, 1200, 1200, 60, 1232, 1232, 4, 1200, 1400}[i%10]
				write(packet(i, size), 1452)
				if i%30 == 29 {
					write(bytes.Repeat(packet(i, 1452), 3), 1452)
					write(append(packet(i, 1452), packet(i, 700)...), 1452)
				}
			}
			got, addrs := receiveAll(t, s, len(want))
			for i := range want {
				if !bytes.Equal(got[i], want[i]) {
					t.Fatalf("packet %d: %d bytes %x, want %d bytes %x", i, len(got[i]), got[i][:4], len(want[i]), want[i][:4])
				}
				a := addrs[i].(*net.UDPAddr)
				if a.Port != own.Port || !a.IP.Equal(own.IP) {
					t.Fatalf("packet %d comes from %s, was sent from %s", i, a, own)
				}
			}
		})
	}
}

// Many that write at the same time lose nothing, and stay in order each.
func TestWritersTogether(t *testing.T) {
	from, _ := open(t, "udp4", "127.0.0.1:0")
	s, to := open(t, "udp4", "127.0.0.1:0")
	const writers, each = 4, 30
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, _, err := from.WriteMsgUDP(packet(w<<16|i, 100+w), oobOf(1452), to); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got, _ := receiveAll(t, s, writers*each)
	var next [writers]int
	for _, p := range got {
		n := int(binary.BigEndian.Uint32(p))
		w, i := n>>16, n&0xffff
		if i != next[w] || len(p) != 100+w {
			t.Fatalf("writer %d: packet %d of %d bytes, want %d", w, i, len(p), next[w])
		}
		next[w]++
	}
}

// Packets that follow closely leave together, and what comes together is read so.
func TestGroups(t *testing.T) {
	var w waiting
	a, b := netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:2")
	for _, p := range []struct {
		size int
		oob  string
		to   netip.AddrPort
	}{{9, "x", a}, {9, "x", a}, {5, "x", a}, {9, "x", a}, {10, "x", a}, {10, "y", a}, {10, "y", b}, {10, "y", b}} {
		w.add(make([]byte, p.size), []byte(p.oob), 1452, p.to)
	}
	var got []int
	for _, g := range w.groups {
		got = append(got, g.n)
	}
	if want := []int{3, 1, 1, 1, 2}; !slices.Equal(got, want) {
		t.Errorf("groups of %v packets, want %v", got, want)
	}
	w = waiting{}
	for range maxSegments + 1 {
		w.add([]byte{1}, nil, 1452, a)
	}
	if len(w.groups) != 2 || w.groups[0].n != maxSegments {
		t.Errorf("%d groups, the first of %d: the kernel takes %d", len(w.groups), w.groups[0].n, maxSegments)
	}
	if rest, size := without(oobOf(1300)); size != 1300 || len(rest) != unix.CmsgSpace(4) {
		t.Errorf("size %d, %d bytes left", size, len(rest))
	}
}

// What cannot be sent is told to who writes to the same address, and to nobody else.
func TestFailure(t *testing.T) {
	s, _ := open(t, "udp4", "127.0.0.1:0")
	bad, good := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}
	deadline := time.Now().Add(10 * time.Second)
	for { // there is no port 0: EINVAL, at once or with the next
		if _, _, err := s.WriteMsgUDP([]byte("x"), nil, bad); err != nil {
			break
		}
		if _, _, err := s.WriteMsgUDP([]byte("x"), nil, good); err != nil {
			t.Fatalf("another address: %v", err)
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing was told")
		}
	}
}

// A deadline ends the wait, and Close.
func TestEnd(t *testing.T) {
	s, _ := open(t, "udp4", "127.0.0.1:0")
	ms := []ipv4.Message{{Buffers: [][]byte{make([]byte, 10)}}}
	_ = s.SetReadDeadline(time.Unix(1, 0))
	if _, err := s.ReadBatch(ms, 0); !os.IsTimeout(err) {
		t.Errorf("got %v, want a timeout", err)
	}
	_ = s.SetReadDeadline(time.Time{})
	done := make(chan error)
	go func() { _, err := s.ReadBatch(ms, 0); done <- err }()
	_ = s.Close()
	if err := <-done; err == nil {
		t.Error("read from a closed socket")
	}
}

func BenchmarkSend(b *testing.B) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	s, _ := New(c)
	defer s.Close()
	to, p, oob := c.LocalAddr().(*net.UDPAddr), make([]byte, 1232), oobOf(1452)
	b.Run("one by one", func(b *testing.B) {
		for b.Loop() {
			_, _, _ = s.UDPConn.WriteMsgUDP(p, oob, to)
		}
	})
	b.Run("groups", func(b *testing.B) {
		for b.Loop() {
			_, _, _ = s.WriteMsgUDP(p, oob, to)
		}
	})
}
