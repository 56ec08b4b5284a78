package proxy

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Reach remembers to which nodes QUIC does not get through, so that not every
// connection has to find that out.
type Reach struct {
	log      *zap.Logger
	blocked  prometheus.Gauge
	fallback prometheus.Counter
	now      func() time.Time

	mu    sync.Mutex
	nodes map[string]*reach // blocked ones; guarded by mu
}

// reach is what is known of one node.
type reach struct {
	until   time.Time // nobody tries before
	backoff time.Duration
}

// How long nobody tries again, at first and at most.
const (
	firstBackoff = 10 * time.Second
	maxBackoff   = 10 * time.Minute
)

// NewReach registers its metrics.
func NewReach(r prometheus.Registerer, log *zap.Logger) *Reach {
	b := &Reach{
		log: log, now: time.Now, nodes: make(map[string]*reach),
		blocked:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "ambit_quic_blocked_nodes", Help: "Nodes to which QUIC does not get through; HTTP/2 is used in its place."}),
		fallback: prometheus.NewCounter(prometheus.CounterOpts{Name: "ambit_quic_fallbacks_total", Help: "Attempts over QUIC that got no answer, after which HTTP/2 was used."}),
	}
	r.MustRegister(b.blocked, b.fallback)
	return b
}

// try reports whether to try QUIC with a node. Of those who ask when a time-out is
// over one does, and the others wait for what comes of it.
func (b *Reach) try(node string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.nodes[node]
	if n == nil {
		return true
	}
	now := b.now()
	if now.Before(n.until) {
		return false
	}
	n.until = now.Add(n.backoff)
	return true
}

// failed notes that nothing came back.
func (b *Reach) failed(node string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.nodes[node]
	if n == nil {
		n = &reach{backoff: firstBackoff / 2}
		b.nodes[node] = n
		b.blocked.Set(float64(len(b.nodes)))
	}
	n.backoff = min(2*n.backoff, maxBackoff)
	n.until = b.now().Add(n.backoff)
	b.fallback.Inc()
	b.log.Warn("QUIC does not get through; using HTTP/2", zap.String("node", node), zap.Duration("again_in", n.backoff), zap.Error(err))
}

// worked notes that QUIC gets through.
func (b *Reach) worked(node string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.nodes[node] == nil {
		return
	}
	delete(b.nodes, node)
	b.blocked.Set(float64(len(b.nodes)))
	b.log.Info("QUIC gets through again", zap.String("node", node))
}
