package sniff

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// maxFrame is the largest frame that offloading makes, and some.
const maxFrame = 256 << 10

// Run captures, and writes a Report as a line of JSON for each line that it
// reads, until the lines end.
func Run(cfg Config, lines io.Reader, out io.Writer) error {
	sock, err := open(cfg.Interface)
	if err != nil {
		return err
	}
	defer sock.Close()
	asked := make(chan error, 1)
	go func() {
		// It ends with its input, or with the process.
		for in := bufio.NewScanner(lines); in.Scan(); {
			asked <- nil
		}
		asked <- io.EOF
	}()
	enc := json.NewEncoder(out)
	if _, err := fmt.Fprintln(out, "capturing"); err != nil {
		return err
	}
	a := newAnalysis(cfg)
	buf := make([]byte, maxFrame)
	for {
		if err := collect(sock, buf, a); err != nil {
			return err
		}
		select {
		case err := <-asked:
			if errors.Is(err, io.EOF) {
				return nil
			}
			if a.report.Dropped, err = dropped(sock); err != nil {
				return err
			}
			if err := enc.Encode(a.take()); err != nil {
				return err
			}
		default:
		}
	}
}

// collect takes frames for a moment.
func collect(sock *os.File, buf []byte, a *analysis) error {
	if err := sock.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		return err
	}
	for {
		n, err := sock.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return fmt.Errorf("capture: %w", err)
		}
		a.frame(buf[:n])
	}
}

// open gives a socket with all frames of a link, those for others too.
func open(name string) (*os.File, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("capture on %s: %w", name, err)
	}
	protocol := uint16(unix.ETH_P_ALL)<<8 | unix.ETH_P_ALL>>8 // in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("capture on %s: %w", name, err)
	}
	err = errors.Join(
		unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(link.Index), Type: unix.PACKET_MR_PROMISC}),
		largeBuffer(fd),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: link.Index}))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("capture on %s: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// largeBuffer asks for much; without root the system's limit is what there is.
func largeBuffer(fd int) error {
	const size = 32 << 20
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size) == nil {
		return nil
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size)
}

func dropped(sock *os.File) (int, error) {
	raw, err := sock.SyscallConn()
	if err != nil {
		return 0, err
	}
	var stats *unix.TpacketStats
	var serr error
	if err := raw.Control(func(fd uintptr) {
		stats, serr = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	}); err != nil {
		return 0, err
	}
	if serr != nil {
		return 0, fmt.Errorf("capture statistics: %w", serr)
	}
	return int(stats.Drops), nil
}
