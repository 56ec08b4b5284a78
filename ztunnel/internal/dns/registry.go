package dns

import (
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"github.com/ambit-mesh/ambit/internal/wds"
)

// Times to live in seconds: virtual addresses stay, endpoints move, and what does
// not exist may soon.
const (
	ttlVirtual  = 30
	ttlEndpoint = 5
	ttlNegative = 5
)

// Registry answers for the names of the mesh as a pod of a namespace means them. It
// is pure but for the store, and safe for concurrent use.
type Registry struct {
	Store *wds.Store
	// Namespace of the pod.
	Namespace string
	// Domain of the cluster, with a dot at the end.
	Domain string
}

// verdict says what is to become of a query.
type verdict int

const (
	forward  verdict = iota // the mesh does not know the name
	answered                // the reply is complete
	wildcard                // a wildcard stands for the name, if it exists
)

// Answer fills in the reply if the mesh knows the name. service is what answers it,
// or the wildcard that stands for it.
func (r *Registry) Answer(reply *dns.Msg, q dns.Question) (verdict, *wds.Service) {
	if q.Qclass != dns.ClassINET && q.Qclass != dns.ClassANY {
		return forward, nil
	}
	name := strings.TrimSuffix(strings.ToLower(q.Name), ".")
	if q.Qtype == dns.TypePTR {
		return r.pointer(reply, q.Name, name), nil
	}
	if svc := r.Store.ServiceNamed(r.Namespace, name); svc != nil && !svc.Wildcard() {
		return r.service(reply, q, svc), svc
	}
	if strings.HasPrefix(name, "_") {
		if v := r.srv(reply, q, name); v != forward {
			return v, nil
		}
	}
	if label, rest, ok := strings.Cut(name, "."); ok {
		if svc := r.Store.ServiceNamed(r.Namespace, rest); svc != nil && headless(svc) {
			if v := r.pod(reply, q, svc, label); v != forward {
				return v, svc
			}
		}
	}
	svc := r.Store.WildcardFor(r.Namespace, name)
	switch {
	case svc == nil || !svc.External || svc.Passthrough:
		return forward, nil
	case len(svc.VIPs) > 0:
		return r.service(reply, q, svc), svc
	}
	return wildcard, svc
}

// headless services have no address of their own.
func headless(svc *wds.Service) bool {
	return len(svc.VIPs) == 0 && !svc.External && !svc.Passthrough
}

func (r *Registry) service(reply *dns.Msg, q dns.Question, svc *wds.Service) verdict {
	switch {
	case headless(svc):
		return r.endpoints(reply, q, svc)
	case len(svc.VIPs) == 0:
		return forward
	}
	switch q.Qtype {
	case dns.TypeA, dns.TypeAAAA, dns.TypeANY:
		for _, a := range svc.VIPs {
			address(reply, q, a, ttlVirtual)
		}
	case dns.TypeHTTPS, dns.TypeSVCB:
		// Their hints of addresses would lead around the virtual ones.
	default:
		if svc.External {
			return forward
		}
	}
	r.close(reply)
	return answered
}

// endpoints answers for a service without an address of its own. Without endpoints
// it is for the cluster's own DNS to say whether the name exists.
func (r *Registry) endpoints(reply *dns.Msg, q dns.Question, svc *wds.Service) verdict {
	members := r.Store.Members(svc)
	if len(members) == 0 {
		return forward
	}
	for _, m := range members {
		for _, a := range m.Workload.Addresses {
			if a.Is4() && svc.V4 || !a.Is4() && svc.V6 {
				address(reply, q, a, ttlEndpoint)
			}
		}
	}
	r.close(reply)
	return answered
}

// pod answers for one endpoint of a headless service: by the hostname of a pod whose
// subdomain is the service, or by its address with dashes.
func (r *Registry) pod(reply *dns.Msg, q dns.Question, svc *wds.Service, label string) verdict {
	found := false
	for _, m := range r.Store.Members(svc) {
		if own := labelOf(svc, m.Workload); own == label {
			for _, a := range m.Workload.Addresses {
				address(reply, q, a, ttlEndpoint)
			}
			found = true
			continue
		}
		for _, a := range m.Workload.Addresses {
			if dashed(a) == label {
				address(reply, q, a, ttlEndpoint)
				found = true
			}
		}
	}
	if !found {
		return forward
	}
	r.close(reply)
	return answered
}

// labelOf gives the name of a workload below a headless service, "" for none.
func labelOf(svc *wds.Service, w *wds.Workload) string {
	if w.Subdomain != svc.Name || w.Namespace != svc.Namespace {
		return ""
	}
	return strings.ToLower(w.Label)
}

func dashed(a netip.Addr) string {
	return strings.NewReplacer(".", "-", ":", "-").Replace(a.String())
}

// srv answers for _port._protocol.service (RFC 2782, Kubernetes DNS 2.3.2).
func (r *Registry) srv(reply *dns.Msg, q dns.Question, name string) verdict {
	port, rest, _ := strings.Cut(name, ".")
	protocol, host, ok := strings.Cut(rest, ".")
	if !ok || !strings.HasPrefix(protocol, "_") {
		return forward
	}
	svc := r.Store.ServiceNamed(r.Namespace, host)
	if svc == nil || svc.External || len(svc.Named) == 0 {
		return forward
	}
	for _, p := range svc.Named {
		if "_"+p.Name != port || "_"+p.Protocol != protocol {
			continue
		}
		if q.Qtype != dns.TypeSRV && q.Qtype != dns.TypeANY {
			r.close(reply)
			return answered
		}
		if !headless(svc) {
			r.target(reply, q, p.Port, dns.Fqdn(svc.Hostname), svc.VIPs, ttlVirtual)
			r.close(reply)
			return answered
		}
		for _, m := range r.Store.Members(svc) {
			target := m.Target(p)
			if target == 0 || len(m.Workload.Addresses) == 0 {
				continue
			}
			label := labelOf(svc, m.Workload)
			if label == "" {
				label = dashed(m.Workload.Addresses[0])
			}
			r.target(reply, q, target, label+"."+dns.Fqdn(svc.Hostname), m.Workload.Addresses, ttlEndpoint)
		}
		if len(reply.Answer) == 0 {
			return forward
		}
		r.close(reply)
		return answered
	}
	reply.Rcode = dns.RcodeNameError
	r.close(reply)
	return answered
}

func (r *Registry) target(reply *dns.Msg, q dns.Question, port uint16, target string, addrs []netip.Addr, ttl uint32) {
	reply.Answer = append(reply.Answer, &dns.SRV{
		Hdr: header(q.Name, dns.TypeSRV, ttl), Weight: 100, Port: port, Target: target,
	})
	for _, a := range addrs {
		reply.Extra = append(reply.Extra, record(target, a, ttl))
	}
}

// pointer answers for an address.
func (r *Registry) pointer(reply *dns.Msg, asked, name string) verdict {
	a, ok := reversed(name)
	if !ok {
		return forward
	}
	var names []string
	if svc := r.Store.ServiceAt(r.Namespace, a); svc != nil && !svc.Wildcard() {
		names = append(names, svc.Hostname)
	} else if w := r.Store.Workload(a); w != nil {
		for _, svc := range r.Store.ServicesOf(w) {
			if label := labelOf(svc, w); label != "" && headless(svc) {
				names = append(names, label+"."+svc.Hostname)
			}
		}
	}
	if len(names) == 0 {
		return forward
	}
	for _, n := range names {
		reply.Answer = append(reply.Answer, &dns.PTR{Hdr: header(asked, dns.TypePTR, ttlVirtual), Ptr: dns.Fqdn(n)})
	}
	r.close(reply)
	return answered
}

// reversed reads a name of in-addr.arpa or ip6.arpa (RFC 1035 section 3.5, RFC 3596).
func reversed(name string) (netip.Addr, bool) {
	if labels, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(labels, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
		return a, err == nil
	}
	labels, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(labels) != 63 {
		return netip.Addr{}, false
	}
	var b strings.Builder
	for i := 62; i >= 0; i -= 2 {
		b.WriteByte(labels[i])
		if i > 0 && labels[i-1] != '.' {
			return netip.Addr{}, false
		}
		if n := (62-i)/2 + 1; n%4 == 0 && n < 32 {
			b.WriteByte(':')
		}
	}
	a, err := netip.ParseAddr(b.String())
	return a, err == nil
}

// close completes a reply of the mesh: a negative one says for how long it holds
// (RFC 2308 section 5).
func (r *Registry) close(reply *dns.Msg) {
	reply.Authoritative = true
	if len(reply.Answer) == 0 {
		reply.Ns = []dns.RR{&dns.SOA{
			Hdr: header(r.Domain, dns.TypeSOA, ttlNegative), Ns: "ns.dns." + r.Domain, Mbox: "hostmaster." + r.Domain,
			Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttlNegative,
		}}
		return
	}
	rand.Shuffle(len(reply.Answer), func(i, j int) {
		if reply.Answer[i].Header().Rrtype == reply.Answer[j].Header().Rrtype {
			reply.Answer[i], reply.Answer[j] = reply.Answer[j], reply.Answer[i]
		}
	})
}

func header(name string, t uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: t, Class: dns.ClassINET, Ttl: ttl}
}

func record(name string, a netip.Addr, ttl uint32) dns.RR {
	if a.Is4() {
		return &dns.A{Hdr: header(name, dns.TypeA, ttl), A: a.AsSlice()}
	}
	return &dns.AAAA{Hdr: header(name, dns.TypeAAAA, ttl), AAAA: a.AsSlice()}
}

// address adds an address if it is of the type that was asked for.
func address(reply *dns.Msg, q dns.Question, a netip.Addr, ttl uint32) {
	rr := record(q.Name, a, ttl)
	if t := rr.Header().Rrtype; q.Qtype == t || q.Qtype == dns.TypeANY {
		reply.Answer = append(reply.Answer, rr)
	}
}
