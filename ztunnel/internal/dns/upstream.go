package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// tryTime bounds one question to one resolver, askTime all of them.
	tryTime = 2 * time.Second
	askTime = 6 * time.Second
	// maxResolvers bounds those that a pod is known to ask.
	maxResolvers = 3
	// bufferSize is what is taken over UDP without fragments (DNS flag day 2020).
	bufferSize = 1232
)

// Dial opens a connection from within the pod, "udp" or "tcp".
type Dial func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error)

// resolvers are those that the pod asks, latest first, and then those of the node.
type resolvers struct {
	dial   Dial
	backup []netip.AddrPort

	mu    sync.Mutex
	known []netip.AddrPort // guarded by mu
}

// saw notes that the pod asks a resolver.
func (r *resolvers) saw(at netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.known) > 0 && r.known[0] == at {
		return
	}
	next := append([]netip.AddrPort{at}, slices.DeleteFunc(slices.Clone(r.known), func(o netip.AddrPort) bool { return o == at })...)
	r.known = next[:min(len(next), maxResolvers)]
}

// order gives whom to ask: the one that was meant, others that the pod asks, and
// the node's if the pod has asked none.
func (r *resolvers) order(first netip.AddrPort) []netip.AddrPort {
	r.mu.Lock()
	known := r.known
	r.mu.Unlock()
	var out []netip.AddrPort
	if first.IsValid() {
		out = append(out, first)
	}
	for _, a := range known {
		if a != first {
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		return r.backup
	}
	return out
}

var errNoResolver = errors.New("the pod has asked no resolver yet, and the node has none")

// ask asks resolvers until one answers. A failure to answer is one of the resolver;
// that a name does not exist is an answer.
func (r *resolvers) ask(ctx context.Context, first netip.AddrPort, query *dns.Msg, tried func(time.Duration, error)) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var failed *dns.Msg
	last := errNoResolver
	for _, at := range r.order(first) {
		began := time.Now()
		reply, err := r.once(ctx, at, query)
		if err == nil && reply.Rcode == dns.RcodeServerFailure {
			failed, err = reply, fmt.Errorf("resolver %s: SERVFAIL", at)
		}
		tried(time.Since(began), err)
		if err == nil {
			return reply, nil
		}
		if last = err; ctx.Err() != nil {
			break
		}
	}
	if failed != nil {
		return failed, nil
	}
	return nil, last
}

func (r *resolvers) once(ctx context.Context, at netip.AddrPort, query *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	q := query.Copy()
	q.Id = dns.Id()
	q.Extra = slices.DeleteFunc(q.Extra, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT })
	opt := query.IsEdns0()
	q.SetEdns0(bufferSize, opt != nil && opt.Do())
	reply, err := r.exchange(ctx, "udp", at, q)
	if err == nil && reply.Truncated {
		reply, err = r.exchange(ctx, "tcp", at, q)
	}
	if err != nil {
		return nil, fmt.Errorf("resolver %s: %w", at, err)
	}
	if reply.Rcode == dns.RcodeFormatError && reply.IsEdns0() == nil {
		// It does not know EDNS0 (RFC 6891 section 7).
		q.Extra = nil
		if reply, err = r.exchange(ctx, "udp", at, q); err == nil && reply.Truncated {
			reply, err = r.exchange(ctx, "tcp", at, q)
		}
	}
	return reply, err
}

func (r *resolvers) exchange(ctx context.Context, network string, at netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
	c, err := r.dial(ctx, network, at)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	wire, err := q.Pack()
	if err != nil {
		return nil, err
	}
	if network == "tcp" {
		wire = append(binary.BigEndian.AppendUint16(nil, uint16(len(wire))), wire...) // #nosec G115 -- Pack bounds it
	}
	if _, err := c.Write(wire); err != nil {
		return nil, err
	}
	buf := make([]byte, dns.MaxMsgSize)
	for {
		n, err := readMessage(c, network, buf)
		if err != nil {
			return nil, err
		}
		reply := new(dns.Msg)
		if err := reply.Unpack(buf[:n]); err == nil && answers(reply, q) {
			return reply, nil
		} else if network == "tcp" {
			return nil, errors.New("an answer to something else")
		}
		// Somebody else's datagram: the answer may still come.
	}
}

func readMessage(c io.Reader, network string, buf []byte) (int, error) {
	if network != "tcp" {
		return c.Read(buf)
	}
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return 0, err
	}
	return io.ReadFull(c, buf[:binary.BigEndian.Uint16(size[:])])
}

// answers tells whether a message is the answer to a query (RFC 5452 section 9.1).
func answers(reply, q *dns.Msg) bool {
	if !reply.Response || reply.Id != q.Id {
		return false
	}
	if len(reply.Question) == 0 {
		return reply.Rcode != dns.RcodeSuccess
	}
	a, b := reply.Question[0], q.Question[0]
	return len(reply.Question) == 1 && a.Qtype == b.Qtype && a.Qclass == b.Qclass && strings.EqualFold(a.Name, b.Name)
}
