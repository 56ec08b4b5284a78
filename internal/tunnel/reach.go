package tunnel

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quic-go/quic-go"
	"go.uber.org/zap"

	workloadpb "github.com/ambit-mesh/ambit/apis/workload"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// Reach remembers to which places QUIC does not get through, so that not every
// connection has to find that out: nodes, and pods of waypoints, which a NetworkPolicy
// may close alone.
type Reach struct {
	log      *zap.Logger
	blocked  prometheus.Gauge
	fallback prometheus.Counter
	now      func() time.Time

	mu     sync.Mutex
	places map[string]*reach // blocked ones; guarded by mu
}

// reach is what is known of one place.
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
		log: log, now: time.Now, places: make(map[string]*reach),
		blocked:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "ambit_quic_blocked_nodes", Help: "Nodes, and pods of waypoints, to which QUIC does not get through; HTTP/2 is used in its place."}),
		fallback: prometheus.NewCounter(prometheus.CounterOpts{Name: "ambit_quic_fallbacks_total", Help: "Attempts over QUIC that got no answer, after which HTTP/2 was used."}),
	}
	r.MustRegister(b.blocked, b.fallback)
	return b
}

// Wants says whether traffic of one workload to another goes over QUIC: both ends have
// a say, and so does what is known of the path. The first must not be nil.
func (b *Reach) Wants(src, dst *wds.Workload, udp bool) bool {
	switch {
	case !dst.HTTP3 && (!udp || !dst.HTTP3UDP), src.Transport == workloadpb.Transport_H2, dst.Transport == workloadpb.Transport_H2:
		return false
	case !udp && src.Transport != workloadpb.Transport_H3 && dst.Transport != workloadpb.Transport_H3:
		return false
	}
	var addr netip.Addr
	if len(dst.Addresses) > 0 {
		addr = dst.Addresses[0]
	}
	return b.try(placeOf(addr, dst))
}

// Dial connects to a workload over QUIC, and remembers what came of it. w is what is
// at the address, nil if that is not known.
func (b *Reach) Dial(ctx context.Context, tr *quic.Transport, at netip.AddrPort, w *wds.Workload, tlsConfig *tls.Config, cfg hbone3.Config) (*hbone3.ClientConn, error) {
	place := placeOf(at.Addr(), w)
	cc, err := hbone3.Dial(ctx, tr, at, tlsConfig, cfg)
	switch {
	case err == nil:
		b.worked(place)
		return cc, nil
	case hbone3.Unreachable(err):
		b.failed(place, err)
	}
	return nil, fmt.Errorf("tunnel to %s: %w", at, err)
}

// placeOf names the place of a workload at an address.
func placeOf(addr netip.Addr, w *wds.Workload) string {
	switch {
	case w != nil && w.Native:
		return "waypoint " + w.Namespace + "/" + w.Name
	case w != nil && w.Node != "":
		return w.Node
	}
	return addr.String()
}

// try reports whether to try QUIC with a place. Of those who ask when a time-out is
// over one does, and the others wait for what comes of it.
func (b *Reach) try(place string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.places[place]
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
func (b *Reach) failed(place string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	// Those that nobody has tried for so long are gone: pods of waypoints come and go.
	maps.DeleteFunc(b.places, func(_ string, n *reach) bool { return now.Sub(n.until) > maxBackoff })
	n := b.places[place]
	if n == nil {
		n = &reach{backoff: firstBackoff / 2}
		b.places[place] = n
	}
	b.blocked.Set(float64(len(b.places)))
	n.backoff = min(2*n.backoff, maxBackoff)
	n.until = now.Add(n.backoff)
	b.fallback.Inc()
	b.log.Warn("QUIC does not get through; using HTTP/2", zap.String("node", place), zap.Duration("again_in", n.backoff), zap.Error(err))
}

// worked notes that QUIC gets through.
func (b *Reach) worked(place string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.places[place] == nil {
		return
	}
	delete(b.places, place)
	b.blocked.Set(float64(len(b.places)))
	b.log.Info("QUIC gets through again", zap.String("node", place))
}
