package masque_test

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/ambit-mesh/ambit/internal/masque"
)

func TestPath(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.6:443":       "/.well-known/masque/udp/192.0.2.6/443/",
		"[2001:db8::42]:8080": "/.well-known/masque/udp/2001%3Adb8%3A%3A42/8080/",
	} {
		got := masque.Path(netip.MustParseAddrPort(addr))
		if got != want {
			t.Errorf("path of %s is %s, want %s", addr, got, want)
		}
		if back, err := masque.ParsePath(got); err != nil || back != addr {
			t.Errorf("%s read back: %q, %v", addr, back, err)
		}
	}
	for _, bad := range []string{
		"", "/", "/.well-known/masque/udp/", "/.well-known/masque/udp/192.0.2.6/", "/.well-known/masque/udp/192.0.2.6/443", "/.well-known/masque/udp/192.0.2.6/443/x",
		"/.well-known/masque/udp/192.0.2.6/0/", "/.well-known/masque/udp/192.0.2.6/65536/", "/.well-known/masque/udp/192.0.2.6/+1/", "/.well-known/masque/udp//1/",
		"/.well-known/masque/udp/a%2Fb/1/", "/.well-known/masque/udp/%zz/1/", "/.well-known/masque/tcp/192.0.2.6/443/",
	} {
		if got, err := masque.ParsePath(bad); err == nil {
			t.Errorf("%q was read as %q", bad, got)
		}
	}
}

func collect(t *testing.T, payload []byte) (all []string) {
	t.Helper()
	if err := masque.Each(payload, func(p []byte) { all = append(all, string(p)) }); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestBatch(t *testing.T) {
	var b masque.Batch
	if b.Add([]byte("one"), 100); !slices.Equal(b.Take(), masque.AppendUDP(nil, []byte("one"))) {
		t.Error("one datagram is not in context 0")
	}
	sent := []string{"a", "", string(bytes.Repeat([]byte("b"), 70)), "d"}
	for _, s := range sent {
		if !b.Add([]byte(s), 100) {
			t.Fatalf("no room for %d bytes", len(s))
		}
	}
	if b.Add(make([]byte, 50), 100) {
		t.Error("took more than fits")
	}
	if got := collect(t, b.Take()); !slices.Equal(got, sent) {
		t.Errorf("got %q", got)
	}
	if b.Len() != 0 {
		t.Error("not empty after Take")
	}
	big := make([]byte, 200)
	if !b.Add(big, 100) || len(b.Take()) != 201 {
		t.Error("an empty batch takes any datagram")
	}
	if got := collect(t, []byte{7, 1, 2}); got != nil {
		t.Errorf("a context that is not known gave %q", got)
	}
	for _, bad := range [][]byte{{}, {2, 5, 1}, {2, 0x40}, append([]byte{0}, make([]byte, masque.MaxUDP+1)...)} {
		if err := masque.Each(bad, func([]byte) {}); !errors.Is(err, masque.ErrMalformed) {
			t.Errorf("% .10x: %v", bad, err)
		}
	}
}

func TestCapsules(t *testing.T) {
	var wire []byte
	var sent [][]byte
	for _, n := range []int{0, 1, 63, 64, 1200, 20000, masque.MaxUDP} {
		p := masque.AppendUDP(nil, bytes.Repeat([]byte{byte(n)}, n))
		sent = append(sent, p)
		wire = masque.AppendCapsule(wire, p)
		wire = append(wire, 0x29, 3, 1, 2, 3) // of another type
	}
	for name, r := range map[string]io.Reader{"whole": bytes.NewReader(wire), "byte by byte": iotest.OneByteReader(bytes.NewReader(wire)), "end with data": iotest.DataErrReader(bytes.NewReader(wire))} {
		c := masque.NewCapsuleReader(r)
		for i, want := range sent {
			if got, err := c.Next(); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s: capsule %d: %d bytes, %v; want %d", name, i, len(got), err, len(want))
			}
		}
		if _, err := c.Next(); err != io.EOF {
			t.Errorf("%s: %v at the end", name, err)
		}
	}
	for _, bad := range [][]byte{{0}, {0, 5, 1}, {0x40}, {0x29, 9, 1}} {
		if _, err := masque.NewCapsuleReader(bytes.NewReader(bad)).Next(); err != io.ErrUnexpectedEOF {
			t.Errorf("% x: %v", bad, err)
		}
	}
	if _, err := masque.NewCapsuleReader(bytes.NewReader([]byte{0, 0x80, 0x02, 0, 0})).Next(); !errors.Is(err, masque.ErrMalformed) {
		t.Errorf("too large a capsule: %v", err)
	}
}

func FuzzCapsules(f *testing.F) {
	f.Add(masque.AppendCapsule(nil, masque.AppendUDP(nil, []byte("hello"))))
	f.Add([]byte{0, 0x80, 0x02, 0, 0})
	f.Add([]byte{0x29, 3, 1, 2, 3, 0, 3, 2, 1, 9})
	f.Fuzz(func(t *testing.T, wire []byte) {
		c := masque.NewCapsuleReader(iotest.HalfReader(bytes.NewReader(wire)))
		total, told := 0, false
		for {
			payload, err := c.Next()
			if err != nil {
				if told && !errors.Is(err, masque.ErrMalformed) {
					t.Fatalf("a whole capsule was said to be there, and then %v", err)
				}
				return
			}
			told = c.Buffered()
			total += len(payload)
			if total > len(wire) {
				t.Fatalf("more out than in")
			}
			n := 0
			_ = masque.Each(payload, func(p []byte) { n += len(p) })
			if n > len(payload) {
				t.Fatalf("%d bytes of datagrams in %d", n, len(payload))
			}
		}
	})
}

func FuzzPath(f *testing.F) {
	f.Add("/.well-known/masque/udp/192.0.2.6/443/")
	f.Add("/.well-known/masque/udp/2001%3Adb8%3A%3A42/8080/")
	f.Fuzz(func(t *testing.T, path string) {
		target, err := masque.ParsePath(path)
		if err != nil {
			return
		}
		if a, err := netip.ParseAddrPort(target); err == nil && a.Addr().Zone() == "" {
			if back, err := masque.ParsePath(masque.Path(a)); err != nil || netip.MustParseAddrPort(back) != a {
				t.Errorf("%q → %s → %q, %v", path, a, back, err)
			}
		}
	})
}

// Buffered tells of whole capsules with datagrams and of nothing else, since who is
// told that another one follows waits for it.
func TestBuffered(t *testing.T) {
	one := masque.AppendCapsule(nil, masque.AppendUDP(nil, []byte("one")))
	for name, tc := range map[string]struct {
		behind []byte
		want   bool
	}{
		"nothing":         {nil, false},
		"another":         {one, true},
		"a part of one":   {one[:len(one)-1], false},
		"a type alone":    {one[:1], false},
		"of another type": {[]byte{0x17, 1, 0}, false},
	} {
		r := masque.NewCapsuleReader(bytes.NewReader(append(bytes.Clone(one), tc.behind...)))
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		if r.Buffered() != tc.want {
			t.Errorf("behind a capsule %s: %v", name, !tc.want)
		}
	}
}

type pipe struct {
	io.Reader
	io.Writer
}

// What a stream has received can be sent on, and is received alike: as a waypoint does.
func FuzzStream(f *testing.F) {
	f.Add(masque.AppendCapsule(nil, masque.AppendUDP(nil, []byte("hello"))))
	f.Add(masque.AppendCapsule(masque.AppendCapsule(nil, []byte{2, 0, 1, 'a', 0}), []byte{7}))
	f.Add([]byte{0x29, 3, 1, 2, 3, 0, 3, 2, 1, 9})
	f.Fuzz(func(t *testing.T, wire []byte) {
		var on bytes.Buffer
		out := masque.NewStream(pipe{nil, &on})
		var first, second []string
		err := masque.NewStream(pipe{iotest.HalfReader(bytes.NewReader(wire)), nil}).Receive(func(p []byte, more bool) {
			if p != nil {
				first = append(first, string(p))
			}
			if err := out.Send(p, more); err != nil {
				t.Fatal(err)
			}
		})
		if err != nil && !errors.Is(err, masque.ErrMalformed) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
		if err := out.Send(nil, false); err != nil {
			t.Fatal(err)
		}
		if err := masque.NewStream(pipe{&on, nil}).Receive(func(p []byte, _ bool) {
			if p != nil {
				second = append(second, string(p))
			}
		}); err != nil || !slices.Equal(first, second) {
			t.Fatalf("sent on %q, received %q, %v", first, second, err)
		}
	})
}
