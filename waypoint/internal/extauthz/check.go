package extauthz

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/internal/guard"
)

// Caller makes unary gRPC calls through the waypoint's upstreams. request and the
// answer are messages without the gRPC prefix; a status other than OK is an error.
type Caller interface {
	Unary(ctx context.Context, backend *waypoint.BackendRef, method string, request []byte, timeout time.Duration) ([]byte, error)
}

// Asker sends HTTP requests through the waypoint's upstreams. The body of the
// response is the caller's to close.
type Asker interface {
	RoundTrip(ctx context.Context, backend *waypoint.BackendRef, req *message.Request) (*message.Response, error)
}

// Config of a Checker.
type Config struct {
	Caller Caller
	Asker  Asker
	// Registerer may be nil.
	Registerer prometheus.Registerer
}

// Checker asks services.
type Checker struct {
	caller  Caller
	asker   Asker
	metrics *Metrics
}

// New makes a Checker.
func New(cfg Config) *Checker {
	return &Checker{caller: cfg.Caller, asker: cfg.Asker, metrics: NewMetrics(cfg.Registerer)}
}

// Check asks whether a request may pass. It may put a body in the place of the
// request's that gives the same bytes.
func (c *Checker) Check(ctx context.Context, s *Service, in Input) Outcome {
	began := time.Now()
	out := c.check(ctx, s, &in)
	out.Allowed = out.Decision == Allowed || out.Decision == FailedOpen
	if !s.GRPC && out.Allowed {
		out.authorities = authorities(s.AllowedResponseHeaders)
	}
	c.metrics.decided(s.Backend.GetService(), out.Decision, time.Since(began))
	return out
}

// authorities are the names that only the service may use towards the backend.
func authorities(names []string) []string {
	var out []string
	for _, n := range names {
		if _, fault := guard.Name(n); fault == guard.Fine && n != "authorization" && n != "cookie" {
			out = append(out, n)
		}
	}
	return out
}

func (c *Checker) check(ctx context.Context, s *Service, in *Input) Outcome {
	if reason := s.Backend.GetInvalid(); reason != "" {
		return s.failed(errors.New(reason))
	}
	body, err := s.body(ctx, in.Request)
	switch {
	case errors.Is(err, errTooLarge):
		return Outcome{
			Decision: TooLarge, Status: http.StatusRequestEntityTooLarge,
			Reason: s.reason("the body is longer than the %d bytes that are sent along; raise the limit of the filter or send less", s.MaxBodyBytes),
		}
	case err != nil:
		return Outcome{Decision: Broken, Status: http.StatusBadRequest, Reason: s.reason("reading the request's body: %v", err)}
	}
	ignored := func(f guard.Fault) { c.metrics.ignored(s.Backend.GetService(), f) }
	if s.GRPC {
		return c.askGRPC(ctx, s, in, body, ignored)
	}
	return c.askHTTP(ctx, s, in, body, ignored)
}

// body gives what is sent along; nil is nothing.
func (s *Service) body(ctx context.Context, req *message.Request) ([]byte, error) {
	if s.MaxBodyBytes <= 0 || req.Tunnel() {
		return nil, nil
	}
	return peek(ctx, req, s.MaxBodyBytes)
}

func (s *Service) timeout() time.Duration {
	if s.Timeout <= 0 {
		return DefaultTimeout
	}
	return s.Timeout
}

func (s *Service) reason(format string, args ...any) string {
	return fmt.Sprintf("%s: external authorization by %s: %s", s.Name, s.Backend.GetService(), fmt.Sprintf(format, args...))
}

// failed is what becomes of a request that nobody has decided about.
func (s *Service) failed(err error) Outcome {
	if s.FailOpen {
		return Outcome{Decision: FailedOpen, Reason: s.reason("not asked, and the filter fails open: %v", err)}
	}
	return Outcome{
		Decision: Failed, Status: http.StatusServiceUnavailable,
		Reason: s.reason("cannot be asked, and the filter does not fail open: %v", err),
	}
}
