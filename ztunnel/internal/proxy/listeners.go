package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/relay/end"
)

// place is a listener of a pod and its port.
type place struct {
	listener **netns.Listener
	port     uint16
}

func (p *Pod) places() []place {
	return []place{{&p.outbound, PortOutbound}, {&p.plaintext, PortPlaintext}, {&p.inbound, PortHBONE}}
}

// socket is what tells the sockets of a pod apart.
type socket struct {
	network string
	at      netip.AddrPort
}

// inherited are the descriptors that another ztunnel has handed over: those of
// sockets, and of relays to it and its predecessors.
type inherited struct {
	sockets map[socket]int
	relays  []int
}

// inherit looks at descriptors. Those that are of no use are closed.
func inherit(ns *netns.Namespace, fds []int) *inherited {
	given := &inherited{sockets: make(map[socket]int, len(fds))}
	for _, fd := range fds {
		if end.Is(fd) {
			given.relays = append(given.relays, fd)
			continue
		}
		network, at, err := netns.ListenerAddr(ns, fd)
		if at.Addr().IsUnspecified() {
			at = netip.AddrPortFrom(netip.IPv6Unspecified(), at.Port()) // as it is asked for
		}
		of := socket{network, at}
		if _, twice := given.sockets[of]; err != nil || twice {
			_ = unix.Close(fd)
			continue
		}
		given.sockets[of] = fd
	}
	return given
}

// listener adopts a socket that was handed over, or opens one.
func (g *inherited) listener(ns *netns.Namespace, network string, at netip.AddrPort, opts netns.ListenOptions) (l *netns.Listener, adopted bool, err error) {
	if fd, ok := g.sockets[socket{"tcp", at}]; ok {
		if l, err = netns.Adopt(ns, fd, opts); err != nil {
			return nil, false, err
		}
		delete(g.sockets, socket{"tcp", at})
		return l, true, nil
	}
	if l, err = netns.Listen(ns, network, at, opts); err != nil {
		return nil, false, fmt.Errorf("listen on %d: %w", at.Port(), err)
	}
	return l, false, nil
}

// datagrams does the same for UDP.
func (g *inherited) datagrams(ns *netns.Namespace, at netip.AddrPort, opts netns.UDPOptions) (*net.UDPConn, error) {
	if fd, ok := g.sockets[socket{"udp", at}]; ok {
		c, err := netns.AdoptUDP(ns, fd)
		if err == nil {
			delete(g.sockets, socket{"udp", at})
		}
		return c, err
	}
	c, err := netns.ListenUDP(ns, at, opts)
	if err != nil {
		return nil, fmt.Errorf("listen on UDP %d: %w", at.Port(), err)
	}
	return c, nil
}

// close closes what nothing was made of, such as that of a port that another version had.
func (g *inherited) close() {
	for _, fd := range g.sockets {
		_ = unix.Close(fd)
	}
	for _, fd := range g.relays {
		_ = unix.Close(fd)
	}
	g.sockets, g.relays = nil, nil
}

// listen opens what the pod listens on, or adopts what there is.
func (p *Pod) listen(fds []int) error {
	given := inherit(p.ns, fds)
	defer given.close()
	opts := netns.ListenOptions{Mark: Mark, Transparent: true, ReusePort: true, Backlog: 4096}
	for _, l := range p.places() {
		var adopted bool
		var err error
		if *l.listener, adopted, err = given.listener(p.ns, "tcp", netip.AddrPortFrom(netip.IPv6Unspecified(), l.port), opts); err != nil {
			return err
		}
		if adopted {
			p.adopted++
		}
	}
	if err := p.openUDP(given); err != nil {
		return err
	}
	var err error
	p.dnsSockets, err = openDNS(p.ns, given)
	return err
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
func (p *Pod) Listeners() (fds []int, err error) {
	defer func() {
		if err != nil {
			for _, fd := range fds {
				_ = unix.Close(fd)
			}
			fds, err = nil, os.NewSyscallError("hand over a socket", err)
		}
	}()
	streams, packets := p.dnsSockets.streams, append([]*net.UDPConn{p.udpOutbound, p.udpPlaintext}, p.dnsSockets.packets...)
	for _, l := range p.places() {
		streams = append(streams[:len(streams):len(streams)], *l.listener)
	}
	for _, l := range streams {
		fd, err := l.Dup()
		if err != nil {
			return fds, err
		}
		fds = append(fds, fd)
	}
	for _, c := range packets {
		fd, err := netns.DupUDP(c)
		if err != nil {
			return fds, err
		}
		fds = append(fds, fd)
	}
	relays, err := p.quicSocket.FDs()
	return append(fds, relays...), err
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
