package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/wds"
)

// Config of the proxy of one pod.
type Config struct {
	Registry Registry
	// Pod is the name of the pod.
	Pod  string
	Dial Dial
	// Resolvers are asked for hosts outside when the pod itself has asked nobody.
	Resolvers []netip.AddrPort
	Metrics   *Metrics
	Log       *zap.Logger
}

// maxAsking bounds the queries of a pod that resolvers are being asked for, so that
// one pod cannot take the descriptors of all.
const maxAsking = 256

// maxChain bounds a chain of CNAME records that leads through resolvers.
const maxChain = 8

// Proxy answers the queries of one pod.
type Proxy struct {
	cfg       Config
	resolvers resolvers
	cache     *cache
	names     *names
	asking    chan struct{}
}

// New makes a proxy.
func New(cfg Config) *Proxy {
	return &Proxy{
		cfg: cfg, resolvers: resolvers{dial: cfg.Dial, backup: cfg.Resolvers}, cache: newCache(), names: newNames(),
		asking: make(chan struct{}, maxAsking),
	}
}

// Name finds the host that an address stands for, and the key of the service with
// the wildcard. ours says that the address cannot be that of anything else.
func (p *Proxy) Name(a netip.Addr) (host, service string, ours bool) { return p.names.at(a.Unmap()) }

// local answers a query if that needs nobody else; a nil reply says that it does.
func (p *Proxy) local(query *dns.Msg) (*dns.Msg, *wds.Service) {
	reply := new(dns.Msg).SetReply(query)
	reply.RecursionAvailable = true
	switch {
	case query.Opcode != dns.OpcodeQuery:
		reply.Rcode = dns.RcodeNotImplemented
		return reply, nil
	case len(query.Question) != 1:
		reply.Rcode = dns.RcodeFormatError
		return reply, nil
	}
	q := query.Question[0]
	if q.Qtype == dns.TypePTR {
		if a, ok := reversed(strings.TrimSuffix(strings.ToLower(q.Name), ".")); ok {
			if host, _, ours := p.names.at(a); ours && host != "" {
				reply.Answer = []dns.RR{&dns.PTR{Hdr: header(q.Name, dns.TypePTR, ttlVirtual), Ptr: dns.Fqdn(host)}}
				p.cfg.Registry.close(reply)
				return reply, nil
			}
		}
	}
	switch v, svc := p.cfg.Registry.Answer(reply, q); v {
	case answered:
		return reply, nil
	case wildcard:
		return nil, svc
	}
	return nil, nil
}

// elsewhere answers a query by asking the resolver at. svc is the wildcard that
// stands for the name, or nil.
func (p *Proxy) elsewhere(ctx context.Context, query *dns.Msg, at netip.AddrPort, svc *wds.Service) *dns.Msg {
	q := query.Question[0]
	reply, err := p.follow(ctx, query, at)
	if err != nil {
		p.cfg.Log.Warn("DNS query failed", zap.String("name", q.Name), zap.String("type", dns.TypeToString[q.Qtype]), zap.Error(err))
		reply = new(dns.Msg).SetReply(query)
		reply.RecursionAvailable, reply.Rcode = true, dns.RcodeServerFailure
		return reply
	}
	if svc == nil {
		return reply
	}
	switch q.Qtype {
	case dns.TypeHTTPS, dns.TypeSVCB:
		reply.Answer, reply.Ns, reply.Extra = nil, nil, nil
		p.cfg.Registry.close(reply)
	case dns.TypeA, dns.TypeAAAA, dns.TypeANY:
		if reply.Rcode != dns.RcodeSuccess || !hasAddress(reply) {
			return reply
		}
		reply.Answer, reply.Ns, reply.Extra = nil, nil, nil
		v4, v6 := p.names.of(strings.TrimSuffix(strings.ToLower(q.Name), "."), svc.Key)
		address(reply, q, v4, ttlVirtual)
		address(reply, q, v6, ttlVirtual)
		p.cfg.Registry.close(reply)
	}
	return reply
}

func hasAddress(reply *dns.Msg) bool {
	for _, rr := range reply.Answer {
		if t := rr.Header().Rrtype; t == dns.TypeA || t == dns.TypeAAAA {
			return true
		}
	}
	return false
}

// follow asks for a name and for what it is an alias of. An alias of something in
// the mesh ends there: its address is the one by which policy knows it.
func (p *Proxy) follow(ctx context.Context, query *dns.Msg, at netip.AddrPort) (*dns.Msg, error) {
	reply, err := p.ask(ctx, query, at)
	q := query.Question[0]
	if err != nil || q.Qtype != dns.TypeA && q.Qtype != dns.TypeAAAA {
		return reply, err
	}
	for range maxChain {
		chain, tail, ended := chainOf(reply, q.Name)
		for i, alias := range chain {
			inside := new(dns.Msg).SetReply(query)
			v, svc := p.cfg.Registry.Answer(inside, dns.Question{Name: alias.Target, Qtype: q.Qtype, Qclass: dns.ClassINET})
			switch {
			case v == wildcard && (hasAddress(reply) || !ended):
				v4, v6 := p.names.of(strings.TrimSuffix(strings.ToLower(alias.Target), "."), svc.Key)
				target := dns.Question{Name: alias.Target, Qtype: q.Qtype, Qclass: dns.ClassINET}
				address(inside, target, v4, ttlVirtual)
				address(inside, target, v6, ttlVirtual)
			case v != answered:
				continue
			}
			own := make([]dns.RR, 0, len(chain)+len(inside.Answer))
			for _, c := range chain[:i+1] {
				own = append(own, c)
			}
			reply.Rcode, reply.Answer, reply.Ns, reply.Extra = inside.Rcode, append(own, inside.Answer...), inside.Ns, nil
			return reply, nil
		}
		if ended || tail == "" || reply.Rcode != dns.RcodeSuccess {
			return reply, nil
		}
		next := query.Copy()
		next.Question[0].Name = tail
		more, err := p.ask(ctx, next, at)
		if err != nil {
			return nil, err
		}
		reply.Rcode, reply.Ns = more.Rcode, more.Ns
		if len(more.Answer) == 0 {
			return reply, nil
		}
		reply.Answer = append(reply.Answer, more.Answer...)
	}
	return nil, fmt.Errorf("more than %d aliases", maxChain)
}

// chainOf gives the aliases of a name in the order in which they lead on, and the
// last target; ended says that there is an address for that, or no alias at all.
func chainOf(reply *dns.Msg, name string) (chain []*dns.CNAME, tail string, ended bool) {
	tail = name
	for len(chain) < maxChain {
		var next *dns.CNAME
		for _, rr := range reply.Answer {
			if !strings.EqualFold(rr.Header().Name, tail) {
				continue
			}
			switch rr := rr.(type) {
			case *dns.A, *dns.AAAA:
				return chain, tail, true
			case *dns.CNAME:
				next = rr
			}
		}
		if next == nil {
			return chain, tail, len(chain) == 0 || len(reply.Ns) > 0
		}
		chain, tail = append(chain, next), next.Target
	}
	return chain, "", false
}

var errTooMany = errors.New("too many queries of the pod are under way")

// ask asks a resolver, or what it said before.
func (p *Proxy) ask(ctx context.Context, query *dns.Msg, at netip.AddrPort) (*dns.Msg, error) {
	q, opt := query.Question[0], query.IsEdns0()
	key := question{name: strings.ToLower(q.Name), qtype: q.Qtype, dnssec: opt != nil && opt.Do(), disabled: query.CheckingDisabled, resolver: at}
	if reply := p.cache.get(key, time.Now()); reply != nil && q.Qclass == dns.ClassINET {
		w, ns := p.labels()
		p.cfg.Metrics.cached.WithLabelValues(w, ns).Inc()
		return adopt(reply, query), nil
	}
	select {
	case p.asking <- struct{}{}:
		defer func() { <-p.asking }()
	default:
		p.refused("queries")
		return nil, errTooMany
	}
	reply, err := p.resolvers.ask(ctx, at, query, p.tried)
	if err != nil {
		return nil, err
	}
	if q.Qclass == dns.ClassINET {
		p.cache.put(key, reply, time.Now())
	}
	return adopt(reply, query), nil
}

// adopt makes a resolver's answer that to a query.
func adopt(reply, query *dns.Msg) *dns.Msg {
	reply.Id, reply.RecursionDesired = query.Id, query.RecursionDesired
	reply.Question = query.Question
	return reply
}

func (p *Proxy) refused(reason string) {
	w, ns := p.labels()
	p.cfg.Metrics.refused.WithLabelValues(w, ns, reason).Inc()
}

// Resolve finds the addresses of a host outside of the mesh for a connection of the
// pod, those of the family that is wanted first.
func (p *Proxy) Resolve(ctx context.Context, host string, v4 bool) ([]netip.Addr, error) {
	types := []uint16{dns.TypeA, dns.TypeAAAA}
	if !v4 {
		types = []uint16{dns.TypeAAAA, dns.TypeA}
	}
	var out []netip.Addr
	var last error
	for _, t := range types {
		query := new(dns.Msg).SetQuestion(dns.Fqdn(host), t)
		reply, err := p.outside(ctx, query)
		if err != nil {
			last = err
			continue
		}
		if reply.Rcode != dns.RcodeSuccess {
			last = fmt.Errorf("%s: %s", host, dns.RcodeToString[reply.Rcode])
		}
		for _, rr := range reply.Answer {
			switch rr := rr.(type) {
			case *dns.A:
				if a, ok := netip.AddrFromSlice(rr.A.To4()); ok {
					out = append(out, a)
				}
			case *dns.AAAA:
				if a, ok := netip.AddrFromSlice(rr.AAAA); ok {
					out = append(out, a.Unmap())
				}
			}
		}
		if len(out) > 0 {
			return out, nil
		}
	}
	if last == nil {
		last = fmt.Errorf("%s has no address", host)
	}
	return nil, fmt.Errorf("resolve: %w", last)
}

// outside follows aliases at the resolvers alone: what the mesh says of a host is
// where the question comes from.
func (p *Proxy) outside(ctx context.Context, query *dns.Msg) (*dns.Msg, error) {
	var at netip.AddrPort
	if order := p.resolvers.order(netip.AddrPort{}); len(order) > 0 {
		at = order[0]
	}
	reply, err := p.ask(ctx, query, at)
	for i := 0; err == nil && i < maxChain; i++ {
		_, tail, ended := chainOf(reply, query.Question[0].Name)
		if ended || reply.Rcode != dns.RcodeSuccess {
			return reply, nil
		}
		next := query.Copy()
		next.Question[0].Name = tail
		var more *dns.Msg
		if more, err = p.ask(ctx, next, at); err == nil {
			reply.Rcode, reply.Answer, reply.Ns = more.Rcode, append(reply.Answer, more.Answer...), more.Ns
			if len(more.Answer) == 0 {
				return reply, nil
			}
		}
	}
	return reply, err
}
