package dns

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/internal/local/service"
)

// ttl is short because endpoints move.
const ttl = 5

// Zone is what there is to answer. It is immutable.
type Zone struct {
	origin  string // with a dot at the end
	records map[string][]dns.RR
	// names are all that exist, those without records of their own too.
	names map[string]bool
}

// NewZone gives the records of all services below a cluster domain such as
// cluster.local.
func NewZone(domain string, namespaces []string, services []service.Backed) *Zone {
	z := &Zone{origin: dns.Fqdn(domain), records: make(map[string][]dns.RR), names: make(map[string]bool)}
	z.exists(z.origin)
	for _, ns := range namespaces {
		z.exists(ns + ".svc." + z.origin)
	}
	for _, b := range services {
		z.service(b)
	}
	return z
}

func (z *Zone) service(b service.Backed) {
	svc := b.Service
	name := svc.Name + "." + svc.Namespace + ".svc." + z.origin
	z.exists(name)
	switch {
	case svc.Spec.Type == corev1.ServiceTypeExternalName:
		if target, ok := dns.IsDomainName(svc.Spec.ExternalName); ok && target > 0 {
			z.add(name, &dns.CNAME{Target: dns.Fqdn(svc.Spec.ExternalName)})
		}
	case svc.Spec.ClusterIP == corev1.ClusterIPNone:
		z.headless(name, b)
	default:
		for _, raw := range svc.Spec.ClusterIPs {
			if a, err := netip.ParseAddr(raw); err == nil {
				z.address(name, a)
				z.pointer(a, name)
			}
		}
		for _, p := range svc.Spec.Ports {
			z.srv(name, p.Name, p.Protocol, p.Port, name)
		}
	}
}

// headless gives a service's endpoints one by one.
func (z *Zone) headless(name string, b service.Backed) {
	for _, e := range b.Endpoints {
		if !e.Ready {
			continue
		}
		for _, a := range e.Addrs {
			if !wants(b.Service, a) {
				continue
			}
			label := e.Hostname
			if label == "" {
				label = strings.NewReplacer(".", "-", ":", "-").Replace(a.String())
			}
			own := label + "." + name
			z.address(name, a)
			z.address(own, a)
			if e.Hostname != "" {
				z.pointer(a, own)
			}
			for _, p := range e.Ports {
				z.srv(name, p.Name, p.Protocol, p.Target, own)
			}
		}
	}
}

// wants reports whether the service serves the address's family.
func wants(svc *corev1.Service, a netip.Addr) bool {
	for _, f := range svc.Spec.IPFamilies {
		if (f == corev1.IPv6Protocol) == a.Is6() {
			return true
		}
	}
	return false
}

func (z *Zone) address(name string, a netip.Addr) {
	if a.Is6() {
		z.add(name, &dns.AAAA{AAAA: a.AsSlice()})
	} else {
		z.add(name, &dns.A{A: a.AsSlice()})
	}
}

func (z *Zone) srv(service, port string, protocol corev1.Protocol, number int32, target string) {
	if port == "" {
		return // RFC 2782 has no name for it, and the specification asks for none
	}
	z.add("_"+port+"._"+strings.ToLower(string(protocol))+"."+service,
		&dns.SRV{Weight: 100, Port: uint16(number), Target: target})
}

func (z *Zone) pointer(a netip.Addr, target string) {
	if reverse, err := dns.ReverseAddr(a.String()); err == nil {
		z.add(reverse, &dns.PTR{Ptr: target})
	}
}

// add adds a record once.
func (z *Zone) add(name string, rr dns.RR) {
	name = strings.ToLower(name)
	*rr.Header() = dns.RR_Header{Name: name, Rrtype: typeOf(rr), Class: dns.ClassINET, Ttl: ttl}
	for _, have := range z.records[name] {
		if dns.IsDuplicate(have, rr) {
			return
		}
	}
	z.exists(name)
	z.records[name] = append(z.records[name], rr)
}

func typeOf(rr dns.RR) uint16 {
	switch rr.(type) {
	case *dns.A:
		return dns.TypeA
	case *dns.AAAA:
		return dns.TypeAAAA
	case *dns.SRV:
		return dns.TypeSRV
	case *dns.PTR:
		return dns.TypePTR
	default:
		return dns.TypeCNAME
	}
}

// exists adds a name and those above it: a name above one that exists does too
// (RFC 8020).
func (z *Zone) exists(name string) {
	for name = strings.ToLower(name); name != "" && !z.names[name]; {
		z.names[name] = true
		if name == z.origin {
			return
		}
		_, name, _ = strings.Cut(name, ".")
	}
}

// reverseZones are those that addresses of the mesh belong to.
var reverseZones = [...]string{"in-addr.arpa.", "ip6.arpa."}

// Answer fills in the reply to a query of one question.
func (z *Zone) Answer(reply *dns.Msg, q dns.Question) {
	name := strings.ToLower(q.Name)
	ours := dns.IsSubDomain(z.origin, name)
	for _, r := range reverseZones {
		ours = ours || dns.IsSubDomain(r, name)
	}
	if !ours || q.Qclass != dns.ClassINET && q.Qclass != dns.ClassANY {
		reply.Rcode = dns.RcodeRefused
		return
	}
	reply.Authoritative = true
	if !z.names[name] {
		reply.Rcode = dns.RcodeNameError
		reply.Ns = []dns.RR{z.soa()}
		return
	}
	z.collect(reply, name, q.Qtype, 0)
	if len(reply.Answer) == 0 {
		reply.Ns = []dns.RR{z.soa()}
	}
}

// maxAliases bounds a chain of CNAME records.
const maxAliases = 8

func (z *Zone) collect(reply *dns.Msg, name string, qtype uint16, depth int) {
	for _, rr := range z.records[name] {
		if t := rr.Header().Rrtype; t == qtype || qtype == dns.TypeANY || t == dns.TypeCNAME {
			reply.Answer = append(reply.Answer, dns.Copy(rr))
		}
		switch rr := rr.(type) {
		case *dns.CNAME:
			if qtype != dns.TypeCNAME && depth < maxAliases {
				z.collect(reply, strings.ToLower(rr.Target), qtype, depth+1)
			}
		case *dns.SRV:
			if qtype == dns.TypeSRV {
				z.extra(reply, rr.Target)
			}
		}
	}
}

// extra adds the addresses of an SRV record's target.
func (z *Zone) extra(reply *dns.Msg, target string) {
	for _, rr := range z.records[strings.ToLower(target)] {
		switch rr.(type) {
		case *dns.A, *dns.AAAA:
			reply.Extra = append(reply.Extra, dns.Copy(rr))
		}
	}
}

func (z *Zone) soa() dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: z.origin, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
		Ns:  "ns.dns." + z.origin, Mbox: "hostmaster." + z.origin,
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl,
	}
}
