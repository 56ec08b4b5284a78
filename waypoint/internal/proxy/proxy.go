package proxy

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/flow"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/http1"
	"github.com/ambit-mesh/ambit/internal/http2"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/internal/stats"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/wds"
	"github.com/ambit-mesh/ambit/waypoint/internal/extauthz"
	"github.com/ambit-mesh/ambit/waypoint/internal/frontend"
	"github.com/ambit-mesh/ambit/waypoint/internal/ratelimit"
	"github.com/ambit-mesh/ambit/waypoint/internal/upstream"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// Config is what a proxy works with.
type Config struct {
	// Gateway is the waypoint's name, <namespace>/<name>.
	Gateway   string
	Store     *wds.Store
	Frontends *frontend.Table
	Upstream  *upstream.Set
	Dialer    *upstream.Dialer
	// OwnPorts are those of the waypoint that clients may connect to.
	OwnPorts []uint16
	// Self gives the waypoint's own workload; nil while it is not known.
	Self func() *wds.Workload
	// BackendLimits gives the rate limits of a service.
	BackendLimits func(service string) []*route.RateLimit
	Limiter       *ratelimit.Limiter
	External      *extauthz.Checker

	HTTP1 http1.Config
	HTTP2 http2.Config
	// UDPSessions is how many sessions of datagrams a client may have.
	UDPSessions int
	// Sampling of traces that nobody has decided about, in millionths.
	Sampling uint32
	Tracer   *trace.Tracer
	Stats    *stats.Requests
	Flows    *flow.Log
	Metrics  *Metrics
	Log      *zap.Logger
	Access   *zap.Logger
}

// Proxy serves the streams of clients.
type Proxy struct {
	cfg       Config
	ctx       context.Context // of what outlives the request that began it
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	mirroring chan struct{}
	active    atomic.Int64
	live      live
	sessions  sessions

	mu       sync.Mutex
	clients  map[drainer]string // the key of the service; guarded by mu
	draining bool               // guarded by mu
}

// New makes a proxy. The limiter and the checker, which call services through it,
// are given with SetFilters.
func New(cfg Config) *Proxy {
	p := &Proxy{cfg: cfg, mirroring: make(chan struct{}, maxMirrors), clients: make(map[drainer]string), sessions: sessions{max: cfg.UDPSessions}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if p.cfg.BackendLimits == nil {
		p.cfg.BackendLimits = func(string) []*route.RateLimit { return nil }
	}
	return p
}

// SetFilters gives the proxy what calls services through it. It is called before
// the first stream.
func (p *Proxy) SetFilters(l *ratelimit.Limiter, c *extauthz.Checker) {
	p.cfg.Limiter, p.cfg.External = l, c
}

// Active is the number of requests under way.
func (p *Proxy) Active() int64 { return p.active.Load() }

// Close ends what is still under way, copies of requests included.
func (p *Proxy) Close() {
	p.cancel()
	p.wg.Wait()
}

// Metrics of a proxy.
type Metrics struct {
	rejected       *prometheus.CounterVec
	refusedStreams *prometheus.CounterVec
	connections    *prometheus.CounterVec
	mirrors        *prometheus.CounterVec
	timeouts       *prometheus.CounterVec
	drops          *prometheus.CounterVec
	turned         *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		rejected:       prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ambit_requests_rejected_total", Help: "Requests that were malformed or exceeded a limit, and were answered without looking further, by the name of the limit; udp_sessions counts sessions beyond those that a client may have, and idle_timeout connections that had no request for too long."}, []string{"limit", "status"}),
		refusedStreams: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ambit_waypoint_streams_refused_total", Help: "Connections that were refused when they were opened; tunnels beyond the handshakes that may be under way have the reason handshakes."}, []string{"reason"}),
		connections:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ambit_waypoint_connections_total", Help: "Connections that were passed on as they are, TCP and TLS, and sessions of UDP."}, []string{"service", "response_flags"}),
		mirrors:        prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ambit_mirrors_total", Help: "Copies of requests by what became of them."}, []string{"backend", "outcome"}),
	}
	m.timeouts = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ambit_timeouts_total", Help: "Requests and connections that a timeout has ended, by which: request, backend_request, try, idle, connect."}, []string{"service", "timeout"})
	m.drops = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ambit_waypoint_datagrams_dropped_total", Help: "Datagrams of sessions that were not passed on, by why: too_large, not_delivered, receive_queue_full."}, []string{"reason"})
	m.turned = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ambit_waypoint_handshakes_turned_away_total", Help: "Handshakes of tunnels over QUIC that were not gone on with: beyond what a waypoint or an address has at a time, unfinished, or asked first to prove the address."}, []string{"reason"})
	r.MustRegister(m.rejected, m.refusedStreams, m.connections, m.mirrors, m.timeouts, m.drops, m.turned)
	return m
}

// TunnelRefused counts a tunnel connection that was not taken.
func (p *Proxy) TunnelRefused(reason string) {
	p.cfg.Metrics.refusedStreams.WithLabelValues(reason).Inc()
}

// TurnedAway counts a handshake over QUIC that was not gone on with.
func (p *Proxy) TurnedAway(why hbone3.Turned) {
	p.cfg.Metrics.turned.WithLabelValues(string(why)).Inc()
}

// QueueFull counts a datagram that came through a tunnel over QUIC and found no room.
func (p *Proxy) QueueFull() { p.cfg.Metrics.drops.WithLabelValues("receive_queue_full").Inc() }

// rejected counts a request that a codec has answered itself.
func (d *downstream) rejected(r message.Rejection) {
	limit := r.Limit
	if limit == "" {
		limit = "malformed"
	}
	d.proxy.cfg.Metrics.rejected.WithLabelValues(limit, statusLabel(r.Status)).Inc()
	if limit == message.LimitIdle {
		return // nobody has asked for anything
	}
	d.proxy.cfg.Access.Error("request rejected", zap.String("src.addr", d.client.Address.String()), zap.String("src.identity", d.client.ID.String()),
		zap.String("dst.service", d.key), zap.Int("status", r.Status), zap.String("limit", limit), zap.String("error", r.Reason))
}

func statusLabel(status int) string {
	if status == 0 {
		return "none"
	}
	return string([]byte{'0' + byte(status/100), '0' + byte(status/10%10), '0' + byte(status%10)})
}
