package route

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
)

// RateLimit bounds what is let through, for each value of the key apart.
type RateLimit struct {
	// Policy is <namespace>/<name> of the object, Rule the rule in it.
	Policy, Rule string
	// Requests in each Unit; Burst is the size of the bucket.
	Requests, Burst uint32
	Unit            time.Duration
	// Global is nil when each waypoint counts for itself.
	Global *GlobalRateLimit
	// Invalid is why the limit cannot be kept; then it is about every request, and
	// what it is about is answered with 500. Limits of a Rule never are, because
	// then the Rule is.
	Invalid string

	scope scope
	keys  []limitKey
}

// GlobalRateLimit asks a service to count.
type GlobalRateLimit struct {
	Backend Backend
	Domain  string
	Timeout Timeout
	// FailOpen lets requests pass while the service cannot be asked.
	FailOpen bool
}

type limitKey struct {
	kind waypoint.RateLimitKey_Type
	name string
}

// Entry is a part of a descriptor of envoy.service.ratelimit.v3.
type Entry struct{ Key, Value string }

// SelectRateLimits appends to dst the limits that are about a request for a
// service (<namespace>/<hostname>).
func SelectRateLimits(dst, limits []*RateLimit, client Client, req *message.Request, service string) []*RateLimit {
	if len(limits) == 0 {
		return dst
	}
	v := look(req)
	for _, l := range limits {
		if l.Invalid != "" || l.scope.holds(&client, &v, service) {
			dst = append(dst, l)
		}
	}
	return dst
}

// Applies says whether the limit is about a request for a service.
func (l *RateLimit) Applies(client Client, req *message.Request, service string) bool {
	v := look(req)
	return l.Invalid != "" || l.scope.holds(&client, &v, service)
}

// Key names the bucket of a request: policy, rule and the values of the key. Each
// value is written with its length, so that no two lists of values have the same
// key. A value that is missing is empty: such requests share a bucket.
func (l *RateLimit) Key(client Client, req *message.Request) string {
	var b strings.Builder
	for _, part := range []string{l.Policy, l.Rule} {
		writePart(&b, part)
	}
	for _, k := range l.keys {
		writePart(&b, k.value(&client, req))
	}
	return b.String()
}

func writePart(b *strings.Builder, s string) {
	b.WriteString(strconv.Itoa(len(s)))
	b.WriteByte(':')
	b.WriteString(s)
}

// Entries gives the descriptor of a request for a global limit: policy and rule,
// then the values of the key.
func (l *RateLimit) Entries(client Client, req *message.Request) []Entry {
	out := make([]Entry, 0, len(l.keys)+2)
	out = append(out, Entry{"policy", l.Policy}, Entry{"rule", l.Rule})
	for _, k := range l.keys {
		out = append(out, Entry{k.label(), k.value(&client, req)})
	}
	return out
}

func (k limitKey) label() string {
	switch k.kind {
	case waypoint.RateLimitKey_TYPE_IDENTITY:
		return "identity"
	case waypoint.RateLimitKey_TYPE_NAMESPACE:
		return "namespace"
	case waypoint.RateLimitKey_TYPE_HEADER:
		return "header:" + k.name
	case waypoint.RateLimitKey_TYPE_PATH:
		return "path"
	}
	return "address"
}

func (k limitKey) value(client *Client, req *message.Request) string {
	switch k.kind {
	case waypoint.RateLimitKey_TYPE_IDENTITY:
		if client.Identity.IsZero() {
			return ""
		}
		return client.Identity.Principal()
	case waypoint.RateLimitKey_TYPE_NAMESPACE:
		return client.Identity.Namespace
	case waypoint.RateLimitKey_TYPE_HEADER:
		value, _ := headerValue(req, k.name)
		return short(value)
	case waypoint.RateLimitKey_TYPE_PATH:
		path, _ := splitTarget(req.Path)
		return short(path)
	}
	if !client.Address.IsValid() {
		return ""
	}
	return client.Address.Unmap().WithZone("").String()
}

// maxKeyPart bounds what a client can make a waypoint remember for a bucket.
const maxKeyPart = 128

// short gives a long value as its hash.
func short(value string) string {
	if len(value) <= maxKeyPart {
		return value
	}
	sum := sha256.Sum256([]byte(value))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// CompileRateLimits reads the limits of a backend; owner names it in problems. A
// limit that cannot be read is Invalid.
func CompileRateLimits(owner string, list []*waypoint.RateLimit) ([]*RateLimit, []Problem) {
	out := make([]*RateLimit, len(list))
	var problems []Problem
	for i, pb := range list {
		c := &compiler{where: Problem{Object: owner + ", RateLimitPolicy " + pb.GetPolicy(), Rule: -1}}
		out[i] = c.rateLimit(fmt.Sprintf("rate_limits[%d]", i), pb)
		out[i].Invalid = c.reason()
		problems = append(append(problems, c.problems...), c.minor...)
	}
	return out, problems
}

func (c *compiler) rateLimit(at string, pb *waypoint.RateLimit) *RateLimit {
	l := &RateLimit{
		Policy: pb.GetPolicy(), Rule: pb.GetRule(), Requests: pb.GetRequests(), Burst: pb.GetBurst(),
		Unit:  c.duration(at+".unit", pb.GetUnit()),
		scope: c.scope(at, pb.GetSources(), pb.GetMatches(), pb.GetBackends()),
	}
	if l.Burst == 0 {
		l.Burst = l.Requests
	}
	// A global limit may have its numbers in the service that counts.
	if l.Unit == 0 && pb.GetGlobal() == nil {
		c.problem(at+".unit", "is missing; say in which time the requests are counted, such as 1s")
	}
	for i, k := range pb.GetKey() {
		l.keys = append(l.keys, c.limitKey(fmt.Sprintf("%s.key[%d]", at, i), k))
	}
	if g := pb.GetGlobal(); g != nil {
		l.Global = &GlobalRateLimit{
			Backend: c.backendRef(at+".global.backend", g.GetBackend()), Domain: g.GetDomain(),
			Timeout: c.timeout(at+".global.timeout", g.GetTimeout()), FailOpen: g.GetFailOpen(),
		}
		if l.Global.Backend.Invalid != "" {
			c.problem(at+".global.backend", l.Global.Backend.Invalid)
		}
	}
	return l
}

func (c *compiler) limitKey(at string, pb *waypoint.RateLimitKey) limitKey {
	k := limitKey{kind: pb.GetType(), name: strings.ToLower(pb.GetName())}
	switch k.kind {
	case waypoint.RateLimitKey_TYPE_IDENTITY, waypoint.RateLimitKey_TYPE_NAMESPACE, waypoint.RateLimitKey_TYPE_PATH, waypoint.RateLimitKey_TYPE_ADDRESS:
	case waypoint.RateLimitKey_TYPE_HEADER:
		if !token(k.name) {
			c.problem(at+".name", fmt.Sprintf("%q is not the name of a header; name the header whose values are counted apart", k.name))
		}
	default:
		c.problem(at+".type", fmt.Sprintf("%v is not known; use identity, namespace, header, path or address", k.kind))
	}
	return k
}
