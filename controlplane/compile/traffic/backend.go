package traffic

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// Backend says how a service is treated by those who send requests to it, or nil
// when no policy is about that. version says that routes of other Services send
// requests to it.
func Backend(mesh Mesh, n types.NamespacedName, version bool) *waypoint.Backend {
	if mesh.Service(n) == nil {
		return nil
	}
	_, hostname, _ := strings.Cut(mesh.ServiceName(n), "/")
	out := &waypoint.Backend{Namespace: n.Namespace, Name: n.Name, Hostname: hostname}
	found := false
	for _, kind := range backendKinds {
		p := Deciding(mesh, kind, Target{Key: graph.ServiceKey(n)})
		if p == nil || Refusal(p) != "" {
			continue
		}
		found = true
		switch p := p.(type) {
		case *v1alpha1.LoadBalancingPolicy:
			out.LoadBalancing = loadBalancing(p, &Report{})
		case *v1alpha1.CircuitBreakerPolicy:
			out.CircuitBreaker = circuitBreaker(p, &Report{})
		case *v1alpha1.OutlierDetectionPolicy:
			out.OutlierDetection = outlierDetection(p, &Report{})
		case *v1alpha1.HealthCheckPolicy:
			out.HealthCheck = healthCheck(p, &Report{})
		}
	}
	if p := decidingX(mesh, n); p != nil {
		out.RetryBudget = retryBudget(p, &Report{})
		found = found || out.GetRetryBudget() != nil
	}
	if out.Tls = backendTLS(mesh, graph.ServiceKey(n), mesh.Service(n)); len(out.GetTls()) > 0 {
		found = true
	}
	if version {
		out.RateLimits = backendLimits(mesh, n)
		found = found || len(out.GetRateLimits()) > 0
	}
	if !found {
		return nil
	}
	return out
}

// HostBackend says how a host of an ExternalService is treated by its waypoint; nil
// when no policy is about that. s has the ports.
func HostBackend(mesh Mesh, s *corev1.Service, host string) *waypoint.Backend {
	tls := HostTLS(mesh, s)
	if len(tls) == 0 {
		return nil
	}
	return &waypoint.Backend{Namespace: s.Namespace, Name: s.Name, Hostname: host, Tls: tls}
}

var algorithms = map[v1alpha1.LoadBalancingAlgorithm]waypoint.LoadBalancing_Algorithm{
	"":                    waypoint.LoadBalancing_ALGORITHM_UNSPECIFIED,
	v1alpha1.LeastRequest: waypoint.LoadBalancing_ALGORITHM_UNSPECIFIED,
	v1alpha1.RoundRobin:   waypoint.LoadBalancing_ALGORITHM_ROUND_ROBIN,
	v1alpha1.Random:       waypoint.LoadBalancing_ALGORITHM_RANDOM,
	v1alpha1.RingHash:     waypoint.LoadBalancing_ALGORITHM_RING_HASH,
	v1alpha1.Maglev:       waypoint.LoadBalancing_ALGORITHM_MAGLEV,
}

func loadBalancing(p *v1alpha1.LoadBalancingPolicy, r *Report) *waypoint.LoadBalancing {
	s := &p.Spec
	algorithm, ok := algorithms[s.Algorithm]
	if !ok {
		r.Add("spec.algorithm", "%q is not an algorithm; use LeastRequest, RoundRobin, Random, RingHash or Maglev", s.Algorithm)
	}
	out := &waypoint.LoadBalancing{Algorithm: algorithm, SlowStart: r.duration("spec.slowStart", s.SlowStart)}
	hashes := s.Algorithm == v1alpha1.RingHash || s.Algorithm == v1alpha1.Maglev
	if hashes != (s.HashOn != nil) {
		r.Add("spec.hashOn", "must be set exactly when algorithm is RingHash or Maglev")
	}
	if s.HashOn != nil {
		out.HashOn = r.hashOn("spec.hashOn", s.HashOn)
	}
	return out
}

func (r *Report) hashOn(at string, h *v1alpha1.LoadBalancingHash) *waypoint.HashOn {
	out := &waypoint.HashOn{}
	if (h.Type == v1alpha1.HashHeader) != (h.Header != nil) {
		r.Add(at+".header", "must be set exactly when type is Header")
	}
	if (h.Type == v1alpha1.HashCookie) != (h.Cookie != nil) {
		r.Add(at+".cookie", "must be set exactly when type is Cookie")
	}
	switch {
	case h.Type == v1alpha1.HashHeader && h.Header != nil:
		r.headerName(at+".header", string(*h.Header))
		out.Type = &waypoint.HashOn_Header{Header: strings.ToLower(string(*h.Header))}
	case h.Type == v1alpha1.HashCookie && h.Cookie != nil:
		r.headerName(at+".cookie.name", h.Cookie.Name)
		out.Type = &waypoint.HashOn_Cookie{Cookie: h.Cookie.Name}
		out.CookieTtl = r.duration(at+".cookie.ttl", h.Cookie.TTL)
	case h.Type == v1alpha1.HashAddress:
		out.Type = &waypoint.HashOn_Address{Address: true}
	case h.Type != v1alpha1.HashHeader && h.Type != v1alpha1.HashCookie:
		r.Add(at+".type", "%q is not a property; use Header, Cookie or Address", h.Type)
	}
	return out
}

const maxBound = 1<<31 - 1

func circuitBreaker(p *v1alpha1.CircuitBreakerPolicy, r *Report) *waypoint.CircuitBreaker {
	s := &p.Spec
	if s.MaxRequests == nil && s.MaxPendingRequests == nil && s.MaxConnections == nil && s.MaxRetries == nil {
		r.Add("spec", "needs maxRequests, maxPendingRequests, maxConnections or maxRetries; without any it would do nothing")
	}
	bound := func(field string, n *int32) uint32 {
		if n == nil {
			return 0
		}
		return r.number(field, n, 0, 1, maxBound)
	}
	return &waypoint.CircuitBreaker{
		MaxRequests: bound("spec.maxRequests", s.MaxRequests), MaxPending: bound("spec.maxPendingRequests", s.MaxPendingRequests),
		MaxConnections: bound("spec.maxConnections", s.MaxConnections), MaxRetries: bound("spec.maxRetries", s.MaxRetries),
	}
}

func outlierDetection(p *v1alpha1.OutlierDetectionPolicy, r *Report) *waypoint.OutlierDetection {
	s := &p.Spec
	out := &waypoint.OutlierDetection{
		ConsecutiveFailures: r.number("spec.consecutiveFailures", s.ConsecutiveFailures, 5, 1, 1000),
		BaseEjection:        r.positive("spec.baseEjection", s.BaseEjection, "30s"),
		MaxEjection:         r.positive("spec.maxEjection", s.MaxEjection, "5m"),
		MaxEjected:          r.number("spec.maxEjectedPercent", s.MaxEjectedPercent, 50, 1, 100),
	}
	if out.GetMaxEjection().AsDuration() < out.GetBaseEjection().AsDuration() {
		r.Add("spec.maxEjection", "must not be shorter than baseEjection, %s", out.GetBaseEjection().AsDuration())
	}
	return out
}

func healthCheck(p *v1alpha1.HealthCheckPolicy, r *Report) *waypoint.HealthCheck {
	s := &p.Spec
	out := &waypoint.HealthCheck{
		Interval: r.positive("spec.interval", s.Interval, "10s"), Timeout: r.positive("spec.timeout", s.Timeout, "1s"),
		UnhealthyThreshold: r.number("spec.unhealthyThreshold", s.UnhealthyThreshold, 3, 1, 100),
		HealthyThreshold:   r.number("spec.healthyThreshold", s.HealthyThreshold, 2, 1, 100),
	}
	if out.GetTimeout().AsDuration() > out.GetInterval().AsDuration() {
		r.Add("spec.timeout", "must not be longer than interval, %s", out.GetInterval().AsDuration())
	}
	if (s.HTTP != nil) != (s.Type == v1alpha1.HealthHTTP) {
		r.Add("spec.http", "must be set exactly when type is HTTP")
	}
	if s.GRPC != nil && s.Type != v1alpha1.HealthGRPC {
		r.Add("spec.grpc", "may be set only when type is GRPC")
	}
	switch {
	case s.Type == v1alpha1.HealthHTTP && s.HTTP != nil:
		if !strings.HasPrefix(s.HTTP.Path, "/") || strings.ContainsAny(s.HTTP.Path, " \r\n\t") {
			r.Add("spec.http.path", "%q is not a path", s.HTTP.Path)
		}
		out.Type = &waypoint.HealthCheck_HttpPath{HttpPath: s.HTTP.Path}
	case s.Type == v1alpha1.HealthGRPC:
		grpc := &waypoint.GRPCHealth{}
		if s.GRPC != nil {
			grpc.Service = s.GRPC.Service
		}
		out.Type = &waypoint.HealthCheck_Grpc{Grpc: grpc}
	case s.Type == v1alpha1.HealthTCP:
		out.Type = &waypoint.HealthCheck_Tcp{Tcp: true}
	case s.Type != v1alpha1.HealthHTTP:
		r.Add("spec.type", "%q is not a type; use HTTP, GRPC or TCP", s.Type)
	}
	return out
}

// decidingX gives the XBackendTrafficPolicy that decides for a Service, or nil.
func decidingX(mesh Mesh, n types.NamespacedName) *gatewayxv1alpha1.XBackendTrafficPolicy {
	var best *gatewayxv1alpha1.XBackendTrafficPolicy
	for _, obj := range mesh.Attached(graph.KindXBackendTrafficPolicy, graph.ServiceKey(n)) {
		p, ok := obj.(*gatewayxv1alpha1.XBackendTrafficPolicy)
		if ok && (best == nil || Older(p, best) < 0) {
			best = p
		}
	}
	return best
}

// retryBudget translates the retry constraint of GEP-3388, with its defaults; nil
// if there is none, or it is wrong.
func retryBudget(p *gatewayxv1alpha1.XBackendTrafficPolicy, r *Report) *waypoint.RetryBudget {
	c := p.Spec.RetryConstraint
	if c == nil {
		return nil
	}
	out := &waypoint.RetryBudget{
		Percent: 20, Interval: r.durationOr("", nil, "10s"), MinCount: 10, MinInterval: r.durationOr("", nil, "1s"),
	}
	if b := c.Budget; b != nil {
		out.Interval = r.positive("spec.retryConstraint.budget.interval", b.Interval, "10s")
		if b.Percent != nil {
			out.Percent = r.count("spec.retryConstraint.budget.percent", *b.Percent, 100)
		}
	}
	if m := c.MinRetryRate; m != nil {
		out.MinInterval = r.positive("spec.retryConstraint.minRetryRate.interval", m.Interval, "1s")
		if m.Count != nil {
			out.MinCount = r.count("spec.retryConstraint.minRetryRate.count", *m.Count, 1_000_000)
		}
	}
	if len(r.Problems) > 0 {
		return nil
	}
	return out
}

func (r *Report) count(field string, n, limit int) uint32 {
	if n < 0 || n > limit {
		r.Add(field, "%d is not possible; use 0 to %d", n, limit)
		return 0
	}
	return uint32(n) // #nosec G115 -- within bounds
}
