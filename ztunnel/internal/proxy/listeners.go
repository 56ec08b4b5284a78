package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/netns"
)

// place is a listener of a pod and its port.
type place struct {
	listener **netns.Listener
	port     uint16
}

func (p *Pod) places() []place {
	return []place{{&p.outbound, PortOutbound}, {&p.plaintext, PortPlaintext}, {&p.inbound, PortHBONE}}
}

// listen adopts the listeners that there are and opens the others. Descriptors that
// are of no use, such as those of a port that another version had, are closed.
func (p *Pod) listen(fds []int) error {
	given := make(map[uint16]int, len(fds))
	for _, fd := range fds {
		at, err := netns.ListenerAddr(p.ns, fd)
		if _, twice := given[at.Port()]; err != nil || twice {
			_ = unix.Close(fd)
			continue
		}
		given[at.Port()] = fd
	}
	defer func() {
		for _, fd := range given {
			_ = unix.Close(fd)
		}
	}()
	opts := netns.ListenOptions{Mark: Mark, Transparent: true, ReusePort: true, Backlog: 4096}
	for _, l := range p.places() {
		var err error
		if fd, ok := given[l.port]; ok {
			if *l.listener, err = netns.Adopt(p.ns, fd, opts); err != nil {
				return err
			}
			delete(given, l.port)
			p.adopted++
			continue
		}
		*l.listener, err = netns.Listen(p.ns, "tcp", netip.AddrPortFrom(netip.IPv6Unspecified(), l.port), opts)
		if err != nil {
			return fmt.Errorf("listen on %d: %w", l.port, err)
		}
	}
	return nil
}

// Adopted says that another process has every socket that the pod listens on, so
// that nothing is lost while this one does not accept.
func (p *Pod) Adopted() bool { return p.adopted == len(p.places()) }

// Begin lets connections be accepted. Further calls do nothing.
func (p *Pod) Begin() { p.beginOnce.Do(func() { close(p.begin) }) }

// Begun reports whether Begin was called.
func (p *Pod) Begun() bool {
	select {
	case <-p.begin:
		return true
	default:
		return false
	}
}

// Listeners gives further descriptors of the sockets that the pod listens on, which
// the caller closes.
func (p *Pod) Listeners() ([]int, error) {
	var fds []int
	for _, l := range p.places() {
		fd, err := (*l.listener).Dup()
		if err != nil {
			for _, fd := range fds {
				_ = unix.Close(fd)
			}
			return nil, os.NewSyscallError("hand over a listener", err)
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

func (p *Pod) closeListeners() {
	for _, l := range p.places() {
		if *l.listener != nil {
			_ = (*l.listener).Close()
		}
	}
	for _, c := range []*net.UDPConn{p.udpOutbound, p.udpPlaintext} {
		if c != nil {
			_ = c.Close()
		}
	}
	if p.dnsSockets != nil {
		p.dnsSockets.close()
	}
}
