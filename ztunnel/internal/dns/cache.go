package dns

import (
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// maxCached bounds the answers that are kept for a pod.
	maxCached = 2048
	// maxTTL bounds how long an answer is kept, whatever it says.
	maxTTL = time.Hour
)

// question is what tells answers apart: two resolvers may know different things.
type question struct {
	name     string
	qtype    uint16
	dnssec   bool
	disabled bool // checking
	resolver netip.AddrPort
}

type kept struct {
	reply   *dns.Msg
	stored  time.Time
	expires time.Time
}

// cache keeps the answers that resolvers gave to one pod.
type cache struct {
	mu  sync.Mutex
	all map[question]kept // guarded by mu
}

func newCache() *cache { return &cache{all: make(map[question]kept)} }

// get gives a copy of an answer with the times to live that are left.
func (c *cache) get(q question, now time.Time) *dns.Msg {
	c.mu.Lock()
	k, ok := c.all[q]
	if ok && !now.Before(k.expires) {
		delete(c.all, q)
		ok = false
	}
	c.mu.Unlock()
	if !ok {
		return nil
	}
	reply := k.reply.Copy()
	age := uint32(now.Sub(k.stored) / time.Second) // #nosec G115 -- at most maxTTL
	for _, section := range [][]dns.RR{reply.Answer, reply.Ns, reply.Extra} {
		for _, rr := range section {
			if h := rr.Header(); h.Rrtype != dns.TypeOPT {
				h.Ttl -= min(h.Ttl, age)
			}
		}
	}
	return reply
}

func (c *cache) put(q question, reply *dns.Msg, now time.Time) {
	ttl := lifetime(reply)
	if ttl <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.all) >= maxCached {
		for other, k := range c.all { // any, but those that have ended first
			delete(c.all, other)
			if now.Before(k.expires) {
				break
			}
		}
	}
	c.all[q] = kept{reply: reply.Copy(), stored: now, expires: now.Add(ttl)}
}

// lifetime says for how long an answer may be kept: the least of its records, and of
// a negative one what its SOA says (RFC 2308 section 5). Failures are not kept.
func lifetime(reply *dns.Msg) time.Duration {
	if reply.Truncated || reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError {
		return 0
	}
	ttl := uint32(maxTTL / time.Second)
	found := false
	for _, rr := range reply.Answer {
		ttl, found = min(ttl, rr.Header().Ttl), true
	}
	for _, rr := range reply.Ns {
		if soa, ok := rr.(*dns.SOA); ok && len(reply.Answer) == 0 {
			ttl, found = min(ttl, soa.Hdr.Ttl, soa.Minttl), true
		}
	}
	if !found {
		return 0
	}
	return time.Duration(ttl) * time.Second
}
