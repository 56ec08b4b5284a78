package flow

import (
	"fmt"
	"slices"
	"strings"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
)

// Filter tells the records that somebody wants.
type Filter struct{ include, exclude []*flowpb.Filter }

// NewFilter checks the parts of a filter: a record is wanted when it matches one
// of include, if there are any, and none of exclude.
func NewFilter(include, exclude []*flowpb.Filter) (*Filter, error) {
	for _, f := range slices.Concat(include, exclude) {
		for _, p := range f.GetProtocols() {
			if !slices.Contains(protocols, p) {
				return nil, fmt.Errorf("protocol %q: want one of %s", p, strings.Join(protocols, ", "))
			}
		}
		for _, s := range f.GetStatuses() {
			if s.GetFrom() > s.GetTo() {
				return nil, fmt.Errorf("status range %d-%d: ends before it begins", s.GetFrom(), s.GetTo())
			}
		}
	}
	return &Filter{include: include, exclude: exclude}, nil
}

// Match reports whether one record is wanted.
func (f *Filter) Match(r *flowpb.FlowRecord) bool { return f.MatchAny([]*flowpb.FlowRecord{r}) }

// MatchAny reports whether a call of which there are several records is wanted:
// one of them matches include, and none exclude.
func (f *Filter) MatchAny(records []*flowpb.FlowRecord) bool {
	wanted := len(f.include) == 0
	for _, r := range records {
		for _, x := range f.exclude {
			if matches(x, r) {
				return false
			}
		}
		wanted = wanted || slices.ContainsFunc(f.include, func(i *flowpb.Filter) bool { return matches(i, r) })
	}
	return wanted
}

// matches reports whether each field that is set has an element that matches.
func matches(f *flowpb.Filter, r *flowpb.FlowRecord) bool {
	return ends(f, r) && target(f, r) && outcome(f, r) && request(f, r)
}

// one reports whether there is nothing to match, or one of the list does.
func one[T any](list []T, match func(T) bool) bool {
	return len(list) == 0 || slices.ContainsFunc(list, match)
}

// ends looks at who talks to whom.
func ends(f *flowpb.Filter, r *flowpb.FlowRecord) bool {
	s, d := r.GetSource(), r.GetDestination()
	return one(f.GetNamespaces(), func(ns string) bool {
		return ns == s.GetNamespace() || ns == d.GetNamespace() || ns == r.GetService().GetNamespace()
	}) &&
		one(f.GetWorkloads(), func(w string) bool { return isWorkload(w, s) || isWorkload(w, d) }) &&
		one(f.GetFrom(), func(w string) bool { return isWorkload(w, s) }) &&
		one(f.GetTo(), func(w string) bool { return isWorkload(w, d) || isService(w, r.GetService()) }) &&
		one(f.GetIdentities(), func(id string) bool { return glob(id, s.GetIdentity()) || glob(id, d.GetIdentity()) })
}

// target looks at what was addressed, and who reports it.
func target(f *flowpb.Filter, r *flowpb.FlowRecord) bool {
	return one(f.GetServices(), func(n string) bool { return isService(n, r.GetService()) }) &&
		one(f.GetPorts(), func(p uint32) bool { return p == r.GetService().GetPort() || p == r.GetDestination().GetPort() }) &&
		one(f.GetNodes(), func(n string) bool { return n == r.GetNode() }) &&
		one(f.GetReporters(), func(x flowpb.Reporter) bool { return x == r.GetReporter() }) &&
		one(f.GetTraceIds(), func(t string) bool { return t == r.GetTraceId() })
}

// outcome looks at what became of it.
func outcome(f *flowpb.Filter, r *flowpb.FlowRecord) bool {
	secure := flowpb.Filter_ENCRYPTED_UNSPECIFIED
	switch {
	case r.GetSecurity().GetMutualTls():
		secure = flowpb.Filter_ENCRYPTED_YES
	case Plaintext(r):
		secure = flowpb.Filter_ENCRYPTED_NO
	}
	return one(f.GetVerdicts(), func(v flowpb.Verdict) bool { return v == r.GetVerdict() }) &&
		(f.GetEncrypted() == flowpb.Filter_ENCRYPTED_UNSPECIFIED || f.GetEncrypted() == secure) &&
		one(f.GetPolicies(), func(p string) bool { return isPolicy(p, r) })
}

// Plaintext reports whether something went over the wire that was not encrypted,
// or would have, had it been allowed. A connection that could not be established
// is neither.
func Plaintext(r *flowpb.FlowRecord) bool {
	return !r.GetSecurity().GetMutualTls() && (r.GetVerdict() != flowpb.Verdict_VERDICT_FAILED || r.GetBytesSent()+r.GetBytesReceived() > 0)
}

// request looks at layer 7. What has none matches no condition on it.
func request(f *flowpb.Filter, r *flowpb.FlowRecord) bool {
	h := r.GetHttp()
	return one(f.GetProtocols(), func(p string) bool { return isProtocol(p, r) }) &&
		one(f.GetStatuses(), func(s *flowpb.StatusRange) bool {
			return h != nil && s.GetFrom() <= h.GetStatus() && h.GetStatus() <= s.GetTo()
		}) &&
		one(f.GetMethods(), func(m string) bool { return h != nil && m == h.GetMethod() }) &&
		one(f.GetPathPrefixes(), func(p string) bool { return h != nil && strings.HasPrefix(h.GetPath(), p) })
}

// named compares [namespace/]name with a name in a namespace.
func named(want, namespace, name string) bool {
	if ns, rest, ok := strings.Cut(want, "/"); ok {
		return ns == namespace && glob(rest, name)
	}
	return glob(want, name)
}

// glob compares with a text in which a trailing * stands for any rest.
func glob(want, s string) bool {
	if prefix, ok := strings.CutSuffix(want, "*"); ok {
		return strings.HasPrefix(s, prefix)
	}
	return s != "" && want == s
}

func isWorkload(want string, e *flowpb.Endpoint) bool {
	ns := e.GetNamespace()
	return named(want, ns, e.GetWorkload()) || named(want, ns, e.GetOwner()) || named(want, ns, e.GetCanonicalService()) ||
		named(want, ns, e.GetServiceAccount()) || want == Address(e).Addr().String()
}

func isService(want string, s *flowpb.Service) bool {
	return s != nil && (named(want, s.GetNamespace(), s.GetName()) || want == s.GetHostname())
}

func isPolicy(want string, r *flowpb.FlowRecord) bool {
	all := append([]*flowpb.PolicyRef{r.GetPolicy(), r.GetHttp().GetFault(), r.GetHttp().GetRateLimit()}, r.GetAudits()...)
	return slices.ContainsFunc(all, func(p *flowpb.PolicyRef) bool { return p != nil && named(want, p.GetNamespace(), p.GetName()) })
}

// protocols are the words that filters know.
var protocols = []string{"tcp", "udp", "http", "http1", "http2", "grpc", "websocket"}

func isProtocol(want string, r *flowpb.FlowRecord) bool {
	h := r.GetHttp()
	switch want {
	case "tcp":
		return h == nil && r.GetProtocol() == flowpb.Protocol_PROTOCOL_TCP
	case "udp":
		return r.GetProtocol() == flowpb.Protocol_PROTOCOL_UDP
	case "http":
		return h != nil
	case "http1":
		return h.GetVersion() == flowpb.HTTP_VERSION_HTTP10 || h.GetVersion() == flowpb.HTTP_VERSION_HTTP11
	case "http2":
		return h.GetVersion() == flowpb.HTTP_VERSION_HTTP2
	case "grpc":
		return h.GetGrpc()
	}
	return h.GetUpgrade() == want
}
