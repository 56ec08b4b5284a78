package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/ztunnel/internal/dns"
)

// dnsListeners are the sockets of a pod's DNS, on loopback alone: nobody else than
// the pod can ask.
type dnsListeners struct {
	packets []*net.UDPConn
	streams []*netns.Listener
}

func openDNS(ns *netns.Namespace, given *inherited) (*dnsListeners, error) {
	l := &dnsListeners{}
	for _, a := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
		at := netip.AddrPortFrom(a, portDNS)
		u, err := given.datagrams(ns, at, netns.UDPOptions{Mark: Mark, Shared: true})
		if a.Is6() && (errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT)) {
			continue // a pod without IPv6
		}
		if err != nil {
			l.close()
			return nil, err
		}
		l.packets = append(l.packets, u)
		network := "tcp4"
		if a.Is6() {
			network = "tcp6"
		}
		s, _, err := given.listener(ns, network, at, netns.ListenOptions{Mark: Mark, ReusePort: true})
		if err != nil {
			l.close()
			return nil, err
		}
		l.streams = append(l.streams, s)
	}
	return l, nil
}

func (l *dnsListeners) close() {
	for _, u := range l.packets {
		_ = u.Close()
	}
	for _, s := range l.streams {
		_ = s.Close()
	}
}

// newDNS makes the proxy of the pod's queries.
func (p *Pod) newDNS() *dns.Proxy {
	return dns.New(dns.Config{
		Registry: dns.Registry{Store: p.cfg.Store, Namespace: p.info.Namespace, Domain: p.cfg.ClusterDomain},
		Pod:      p.info.Name, Dial: p.dialResolver, Resolvers: p.cfg.Resolvers, Metrics: p.cfg.DNSMetrics, Log: p.log,
	})
}

func (p *Pod) dialResolver(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	if network == "udp" {
		return netns.DialUDP(p.ns, netip.AddrPort{}, to, netns.UDPOptions{Mark: Mark})
	}
	return netns.Dial(ctx, p.ns, netns.DialOptions{Mark: Mark}, to)
}

// serveDNS answers until the listeners are closed.
func (p *Pod) serveDNS(ctx context.Context) {
	flows, err := netns.OpenConntrack(p.ns)
	if err != nil {
		p.log.Error("DNS queries over UDP go to the node's resolvers", zap.Error(err))
	} else {
		defer flows.Close()
	}
	var wg sync.WaitGroup
	defer wg.Wait() // before flows is closed
	for _, u := range p.dnsSockets.packets {
		local := u.LocalAddr().(*net.UDPAddr).AddrPort()
		local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
		wg.Add(1)
		go func() {
			defer wg.Done()
			p.dns.ServeUDP(ctx, u, func(client netip.AddrPort) netip.AddrPort {
				return p.resolverOf(flows, netip.AddrPortFrom(client.Addr().Unmap(), client.Port()), local)
			})
		}()
	}
	slots := make(chan struct{}, dns.MaxStreams)
	for _, s := range p.dnsSockets.streams {
		wg.Add(1)
		go func() {
			defer wg.Done()
			p.accept(ctx, s, func(ctx context.Context, c *netns.Conn) {
				select {
				case slots <- struct{}{}:
					defer func() { <-slots }()
				default:
					return
				}
				at, err := netns.OriginalDst(c)
				if err != nil || at == c.LocalAddrPort() {
					at = netip.AddrPort{}
				}
				p.dns.ServeTCP(ctx, c, at)
			})
		}()
	}
}

// resolverOf tells which resolver a client had asked.
func (p *Pod) resolverOf(flows *netns.Conntrack, client, local netip.AddrPort) netip.AddrPort {
	if flows == nil {
		return netip.AddrPort{}
	}
	at, err := flows.OriginalUDP(client, local)
	if err != nil || at == local {
		// Asked directly, or so long ago that it is forgotten.
		return netip.AddrPort{}
	}
	return at
}

// resolve finds where a host outside is. Each try after the first, which is 0, gets the
// next one of its addresses.
func (p *Pod) resolve(ctx context.Context, host string, port uint16, v4 bool, try int) (netip.AddrPort, error) {
	if p.dns == nil {
		return netip.AddrPort{}, fmt.Errorf("resolve %s: DNS is off", host)
	}
	addrs, err := p.dns.Resolve(ctx, host, v4)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(addrs[try%len(addrs)], port), nil
}
