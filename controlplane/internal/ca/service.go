package ca

import (
	"context"
	"crypto/x509"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"

	capb "github.com/ambit-mesh/ambit/apis/ca"
	"github.com/ambit-mesh/ambit/controlplane/internal/nodes"
	"github.com/ambit-mesh/ambit/internal/identity"
)

// impersonated is the metadata field that names the identity asked for.
const impersonated = "ImpersonatedIdentity"

// maxLimiters is when limiters that hold nobody back are dropped.
const maxLimiters = 4096

// Service answers IstioCertificateService calls of authenticated nodes.
type Service struct {
	capb.UnimplementedIstioCertificateServiceServer

	authority  *Authority
	authorizer Authorizer
	audit      *zap.Logger

	mu       sync.Mutex
	limiters map[string]*rate.Limiter // guarded by mu; by caller
}

// NewService gives the service of an authority. The calls' contexts must carry
// the caller (package nodes).
func NewService(a *Authority, authz Authorizer) *Service {
	return &Service{authority: a, authorizer: authz, audit: a.cfg.Log.Named("audit"), limiters: make(map[string]*rate.Limiter)}
}

// request is what a call asks for, as far as it has been read.
type request struct {
	caller nodes.Caller
	id     identity.ID
}

// CreateCertificate grants or refuses, and records which.
func (s *Service) CreateCertificate(ctx context.Context, in *capb.IstioCertificateRequest) (*capb.IstioCertificateResponse, error) {
	var req request
	began := time.Now()
	defer func() { s.authority.metrics.latency.Observe(time.Since(began).Seconds()) }()
	leaf, t, refused := s.create(ctx, in, &req)
	fields := []zap.Field{zap.String("node", req.caller.Node), zap.Stringer("identity", req.id)}
	if req.caller.Workload != nil {
		fields = append(fields, zap.String("workload", req.caller.Name()))
	}
	if p, ok := peer.FromContext(ctx); ok {
		fields = append(fields, zap.Stringer("peer", p.Addr))
	}
	if refused != nil {
		s.authority.metrics.refusals.WithLabelValues(refused.reason).Inc()
		s.audit.Warn("certificate refused", append(fields,
			zap.String("asked", clip(impersonatedIdentity(in))), zap.String("reason", refused.reason), zap.Stringer("code", refused.code), zap.Error(refused.err))...)
		return nil, refused
	}
	s.authority.metrics.issued.Inc()
	reason := "the node runs a live pod of the identity"
	if req.caller.Workload != nil {
		reason = "the workload is alive and the identity is its own"
	}
	s.audit.Info("certificate granted", append(fields,
		zap.String("reason", reason), zap.String("serial", leaf.SerialNumber.Text(16)), zap.Time("expires", leaf.NotAfter))...)
	chain := append([]string{encodeCert(leaf)}, t.issuer.chain...)
	return &capb.IstioCertificateResponse{CertChain: append(chain, t.bundle)}, nil
}

// create takes a request through the gates of the package comment.
func (s *Service) create(ctx context.Context, in *capb.IstioCertificateRequest, req *request) (*x509.Certificate, *trust, *refusedError) {
	cfg := &s.authority.cfg
	caller, ok := nodes.FromContext(ctx)
	if !ok {
		return nil, nil, refuse(codes.Unauthenticated, "no_credentials", "no node credential: send metadata authorization: Bearer <node token>")
	}
	req.caller = caller
	now := cfg.Now()
	if !s.limiter(caller.Name()).AllowN(now, 1) {
		return nil, nil, refuse(codes.ResourceExhausted, "rate_limited", "node %s asks for more than %v certificates a second; try again later", caller.Name(), cfg.RatePerNode)
	}
	id, refused := s.wanted(in)
	if refused != nil {
		return nil, nil, refused
	}
	req.id = id
	if err := s.authorizer.Authorize(caller, id); err != nil {
		return nil, nil, &refusedError{code: codes.PermissionDenied, reason: "not_authorized", err: err}
	}
	pub, err := parseCSR(in.GetCsr(), id)
	if err != nil {
		return nil, nil, refuseCSR(err)
	}
	ttl, refused := s.ttl(in.GetValidityDuration())
	if refused != nil {
		return nil, nil, refused
	}
	t := s.authority.current.Load()
	notBefore, notAfter, err := t.issuer.validity(now, ttl)
	if err != nil {
		return nil, nil, &refusedError{code: codes.Unavailable, reason: "issuer_expired", err: err}
	}
	leaf, err := t.issuer.signWorkload(id, pub, notBefore, notAfter)
	if err != nil {
		return nil, nil, &refusedError{code: codes.Internal, reason: "internal", err: err}
	}
	return leaf, t, nil
}

// wanted reads the identity asked for, which must be of our trust domain.
func (s *Service) wanted(in *capb.IstioCertificateRequest) (identity.ID, *refusedError) {
	asked := impersonatedIdentity(in)
	if asked == "" {
		return identity.ID{}, refuse(codes.InvalidArgument, "no_identity", "metadata field %s is missing: a node has no certificate of its own, name the identity of one of its pods", impersonated)
	}
	id, err := identity.Parse(asked)
	if err != nil {
		return identity.ID{}, &refusedError{code: codes.InvalidArgument, reason: "malformed_identity", err: err}
	}
	if td := s.authority.cfg.TrustDomain; id.TrustDomain != td {
		return identity.ID{}, refuse(codes.PermissionDenied, "trust_domain", "identity %s: this CA is for trust domain %s only", id, td)
	}
	return id, nil
}

func impersonatedIdentity(in *capb.IstioCertificateRequest) string {
	return in.GetMetadata().GetFields()[impersonated].GetStringValue()
}

// ttl clamps the life asked for, in seconds; 0 asks for the longest.
func (s *Service) ttl(seconds int64) (time.Duration, *refusedError) {
	cfg := &s.authority.cfg
	switch {
	case seconds < 0:
		return 0, refuse(codes.InvalidArgument, "validity", "validity_duration %d: must not be negative", seconds)
	case seconds == 0 || seconds >= int64(cfg.TTL/time.Second):
		return cfg.TTL, nil
	}
	return max(cfg.MinTTL, time.Duration(seconds)*time.Second), nil
}

func (s *Service) limiter(caller string) *rate.Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.limiters[caller]
	if !ok {
		cfg := &s.authority.cfg
		if len(s.limiters) >= maxLimiters {
			s.dropIdleLimiters(cfg.Now())
		}
		l = rate.NewLimiter(rate.Limit(cfg.RatePerNode), cfg.RateBurst)
		s.limiters[caller] = l
	}
	return l
}

// dropIdleLimiters forgets callers whose burst is whole again. Called with mu held.
func (s *Service) dropIdleLimiters(now time.Time) {
	for caller, l := range s.limiters {
		if l.TokensAt(now) >= float64(l.Burst()) {
			delete(s.limiters, caller)
		}
	}
}
