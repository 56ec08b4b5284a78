package dns

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/zap"
)

const (
	// patience is how long a client may be silent over TCP (RFC 7766 section 6.2.3).
	patience = 10 * time.Second
	// maxStreams bounds the TCP connections of a pod.
	maxStreams = 64
	// maxWaiting bounds the datagrams of a pod that wait for resolvers; those beyond
	// are answered SERVFAIL.
	maxWaiting = 2 * maxAsking
)

// Datagrams is a UDP socket.
type Datagrams interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
}

// ServeUDP answers datagrams until the socket is closed. original tells whom a
// client had meant its datagram for; the zero value is nobody.
func (p *Proxy) ServeUDP(ctx context.Context, c Datagrams, original func(client netip.AddrPort) netip.AddrPort) {
	var wg sync.WaitGroup
	defer wg.Wait()
	waiting := make(chan struct{}, maxWaiting)
	buf := make([]byte, dns.MaxMsgSize)
	for {
		n, client, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		query := p.read(buf[:n], "udp")
		if query == nil {
			continue
		}
		send := func(reply *dns.Msg) {
			if wire := pack(reply, query, false); wire != nil {
				_, _ = c.WriteToUDPAddrPort(wire, client) // a client that is gone needs no answer
			}
		}
		reply, svc := p.local(query)
		if reply != nil {
			send(reply)
			continue
		}
		select {
		case waiting <- struct{}{}:
		default:
			p.refused("queries")
			reply = new(dns.Msg).SetRcode(query, dns.RcodeServerFailure)
			send(reply)
			continue
		}
		wg.Add(1)
		go func() {
			defer func() { <-waiting; wg.Done() }()
			at := original(client)
			if at.IsValid() {
				p.resolvers.saw(at)
			}
			send(p.elsewhere(ctx, query, at, svc))
		}()
	}
}

// ServeTCP answers the queries of a connection, in order, until it ends.
func (p *Proxy) ServeTCP(ctx context.Context, c net.Conn, at netip.AddrPort) {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if at.IsValid() {
		p.resolvers.saw(at)
	}
	for {
		if ctx.Err() != nil || c.SetReadDeadline(time.Now().Add(patience)) != nil {
			return
		}
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		buf := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, buf); err != nil {
			return
		}
		query := p.read(buf, "tcp")
		if query == nil {
			return
		}
		reply, svc := p.local(query)
		if reply == nil {
			reply = p.elsewhere(ctx, query, at, svc)
		}
		wire := pack(reply, query, true)
		if wire == nil {
			return
		}
		wire = append(binary.BigEndian.AppendUint16(nil, uint16(len(wire))), wire...) // #nosec G115 -- Truncate bounds it
		_ = c.SetWriteDeadline(time.Now().Add(patience))
		if _, err := c.Write(wire); err != nil {
			return
		}
	}
}

// read reads a query; nil for what cannot be answered at all. What can be read of a
// malformed one is answered FORMERR by pack of its header, which needs the question.
func (p *Proxy) read(b []byte, protocol string) *dns.Msg {
	query := new(dns.Msg)
	if err := query.Unpack(b); err != nil || query.Response {
		p.refused("malformed")
		p.cfg.Log.Debug("DNS query dropped", zap.Int("bytes", len(b)), zap.Error(err))
		return nil
	}
	w, ns := p.labels()
	p.cfg.Metrics.requests.WithLabelValues(w, ns, protocol).Inc()
	if ce := p.cfg.Log.Check(zap.DebugLevel, "DNS query"); ce != nil && len(query.Question) == 1 {
		ce.Write(zap.String("name", query.Question[0].Name), zap.String("type", dns.TypeToString[query.Question[0].Qtype]), zap.String("protocol", protocol))
	}
	return query
}

// pack gives the bytes of a reply, cut to what the client takes.
func pack(reply, query *dns.Msg, stream bool) []byte {
	kept := reply.Extra[:0]
	for _, rr := range reply.Extra {
		if rr.Header().Rrtype != dns.TypeOPT { // that of the resolver is not for the client
			kept = append(kept, rr)
		}
	}
	reply.Extra = kept
	size := dns.MaxMsgSize
	opt := query.IsEdns0()
	if !stream {
		size = dns.MinMsgSize
		if opt != nil {
			size = max(size, min(int(opt.UDPSize()), bufferSize))
		}
	}
	if opt != nil {
		if opt.Version() != 0 {
			// RFC 6891 section 6.1.3.
			reply.Rcode, reply.Answer, reply.Ns, reply.Extra = dns.RcodeBadVers, nil, nil, nil
		}
		reply.SetEdns0(bufferSize, opt.Do())
	}
	reply.Compress = true
	reply.Truncate(size)
	wire, err := reply.Pack()
	if err != nil {
		wire, err = new(dns.Msg).SetRcode(query, dns.RcodeServerFailure).Pack()
		if err != nil {
			return nil
		}
	}
	return wire
}

// MaxStreams is how many TCP connections a pod may have to its proxy.
const MaxStreams = maxStreams
