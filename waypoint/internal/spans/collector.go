package spans

import (
	"context"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/trace/otlp"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// Caller calls services of the mesh.
type Caller interface {
	UnaryWith(ctx context.Context, ref *waypoint.BackendRef, method string, metadata message.Fields, request []byte, timeout time.Duration) ([]byte, error)
}

// Collector is where spans of services go.
type Collector struct {
	id string
	// telemetry is that of the service that came first; where spans go and who makes
	// them is the same in all.
	telemetry *route.Telemetry
	// tracer is nil while there is no room for it, and once it has been stopped.
	tracer atomic.Pointer[trace.Tracer]

	users  int                // guarded by Set.mu
	idle   *time.Timer        // stops it; nil while it has users; guarded by Set.mu
	cancel context.CancelFunc // nil until it runs; guarded by Set.mu
}

// Tracer gives the tracer, which makes no spans where there is no room for it; own
// when there is no Collector. It takes no lock.
func (c *Collector) Tracer(own *trace.Tracer) *trace.Tracer {
	if c == nil {
		return own
	}
	return c.tracer.Load()
}

// idOf tells collectors apart; "" is the waypoint's own.
func idOf(t *route.Telemetry) string {
	if t == nil || t.Invalid != "" || t.Collector == nil && t.ServiceName == "" {
		return ""
	}
	parts := []string{t.ServiceName}
	if c := t.Collector; c != nil {
		parts = append(parts, c.Service, strconv.Itoa(int(c.Port)))
		for _, h := range c.Headers {
			parts = append(parts, h.Name, h.Value)
		}
	}
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(strconv.Itoa(len(p)) + ":" + p)
	}
	return b.String()
}

// name is for people. It says nothing of headers, which are credentials.
func (c *Collector) name() string {
	t := c.telemetry.Collector
	if t == nil {
		return "the waypoint's own as " + c.telemetry.ServiceName
	}
	return net.JoinHostPort(t.Service, strconv.Itoa(int(t.Port)))
}

// open makes the tracer.
func (s *Set) open(c *Collector) error {
	cfg := s.cfg.Own
	cfg.Log = s.cfg.Log.With(zap.String("collector", c.name()))
	if name := c.telemetry.ServiceName; name != "" {
		cfg.Resource.Service = name
	}
	var t *trace.Tracer
	var err error
	if to := c.telemetry.Collector; to == nil {
		t, err = otlp.New(cfg, s.cfg.Metrics)
	} else {
		ref := &waypoint.BackendRef{Service: to.Service, Port: uint32(to.Port), Protocol: waypoint.Protocol_PROTOCOL_HTTP2}
		t, err = otlp.Through(cfg, func(ctx context.Context, request []byte) ([]byte, error) {
			return s.caller.UnaryWith(ctx, ref, otlp.Method, to.Headers, request, 0) // ctx has the bound
		}, s.cfg.Metrics)
	}
	if err == nil {
		c.tracer.Store(t)
	}
	return err
}
