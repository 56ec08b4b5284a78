package vip

import (
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/netns/netnstest"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Main(m.Run)) }

// The kernel answers each message of a transaction, all before the first can be read.
func TestProgramTakesManyServices(t *testing.T) {
	var own *os.File
	if err := netnstest.New(t).WithFD(func(fd int) error {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		own = os.NewFile(uintptr(dup), "namespace")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	p := NewProgrammer(own)
	for _, size := range []int{0, 10, 60} {
		var table Table
		for i := range size {
			for _, a := range []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), netip.AddrFrom16([16]byte{0xfd, 14: byte(i >> 8), 15: byte(i)})} {
				table.Frontends = append(table.Frontends, Frontend{Protocol: TCP, Address: netip.AddrPortFrom(a, 80), Backends: []netip.AddrPort{netip.AddrPortFrom(a, 8080)}})
			}
		}
		if err := p.Program(table); err != nil {
			t.Fatalf("%d services: %v", size, err)
		}
	}
}
