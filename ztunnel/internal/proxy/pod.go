package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/flow"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/masque"
	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/relay"
	"github.com/ambit-mesh/ambit/internal/tunnel"
	"github.com/ambit-mesh/ambit/internal/wds"
	"github.com/ambit-mesh/ambit/ztunnel/internal/dns"
)

// Ports inside a captured pod's network namespace.
const (
	PortOutbound  = 15001
	PortPlaintext = 15006
	PortHBONE     = 15008
	portDNS       = 15053
)

// Mark is on every packet of ours, so that capture leaves it alone.
const Mark = 0x539

// Config is what all pods share.
type Config struct {
	Store   *wds.Store
	Metrics *Metrics
	Log     *zap.Logger
	Access  *zap.Logger
	// Flows gets a record of each connection; nil for none.
	Flows *flow.Log
	HBONE hbone.Config
	// HBONE3 bounds tunnels over QUIC, Reach remembers where those get through.
	HBONE3 hbone3.Config
	Reach  *tunnel.Reach
	// Cluster is the id of this cluster, for baggage.
	Cluster string
	// Network is the network that this node is in.
	Network string
	// ClusterDomain is the DNS suffix of service names, with a dot at the end.
	ClusterDomain string
	// Resolvers are asked for hosts outside when a pod has asked none itself.
	Resolvers  []netip.AddrPort
	DNSMetrics *dns.Metrics
	// ConnectTimeout bounds each attempt to connect; 10 s when zero.
	ConnectTimeout time.Duration
	// Drain bounds how long connections may go on after the proxy was told to stop;
	// without bound unless positive.
	Drain time.Duration
}

// releaseDrain bounds how long connections go on after their pod was taken away.
// The node agent does that when the last of them has ended, when it has waited long
// enough, or when the pod's network is gone, and then nothing else may end them.
const releaseDrain = 25 * time.Second

// knownTimeout bounds the wait for the control plane to tell of a pod whose
// traffic is already here.
const knownTimeout = 5 * time.Second

// maxHandshakes bounds the handshakes of a pod that are under way at a time.
const maxHandshakes = 512

// reportInterval is how often byte counters of open connections are updated.
const reportInterval = 15 * time.Second

// Info names a pod.
type Info struct {
	UID, Namespace, Name string
}

// Pod carries the connections of one captured pod.
type Pod struct {
	cfg    Config
	info   Info
	ns     *netns.Namespace
	source *certs.Source
	log    *zap.Logger

	outbound, plaintext, inbound *netns.Listener
	dnsSockets                   *dnsListeners
	dns                          *dns.Proxy
	pool                         *hbone.Pool[tunnel.Key]
	pool3                        *hbone3.Pool[tunnel.Key]
	udpOutbound, udpPlaintext    *net.UDPConn
	quicSocket                   *relay.Socket
	quic                         *hbone3.Server  // tunnels from other nodes
	quicOwn                      *quic.Transport // tunnels to other nodes
	conns                        *registry
	handshakes                   chan struct{}
	wg                           sync.WaitGroup // everything that serves a connection
	settingUp                    sync.WaitGroup // outbound connections that have no way yet
	adopted                      int            // listeners that another process has too
	begin                        chan struct{}  // closed when connections may be accepted
	beginOnce                    sync.Once

	mu      sync.Mutex
	tunnels map[*hbone.ServerConn]struct{} // guarded by mu
	closing bool                           // guarded by mu
	away    bool                           // Release was called; guarded by mu
	// Sessions of datagrams that came through tunnels: all, and by client. Guarded by mu.
	udpCount int
	udpFrom  map[netip.Addr]int
}

// Open opens the pod's listeners, all or none. Run has to be called next; it owns
// ns and the listeners from then on. Sockets of ours that listen in the pod already,
// given by their descriptors, are adopted; Open owns the descriptors. Nothing is
// accepted before Begin.
func Open(cfg Config, info Info, ns *netns.Namespace, source *certs.Source, fds ...int) (*Pod, error) {
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 10 * time.Second
	}
	if cfg.ClusterDomain == "" {
		cfg.ClusterDomain = "cluster.local."
	}
	p := &Pod{
		cfg: cfg, info: info, ns: ns, source: source, conns: newRegistry(),
		log:        cfg.Log.With(zap.String("pod", info.Namespace+"/"+info.Name), zap.String("uid", info.UID)),
		handshakes: make(chan struct{}, maxHandshakes), tunnels: make(map[*hbone.ServerConn]struct{}),
		begin: make(chan struct{}),
	}
	p.cfg.HBONE.Protocol = masque.Protocol
	p.pool = hbone.NewPool(p.dialTunnel, p.log)
	p.pool3 = hbone3.NewPool(p.dialQUIC)
	if err := p.listen(fds); err != nil {
		p.closeListeners()
		p.closeQUIC()
		return nil, fmt.Errorf("pod %s/%s: %w", info.Namespace, info.Name, err)
	}
	p.dns = p.newDNS()
	return p, nil
}

// Run serves the pod until ctx ends; then it takes no more connections, lets those
// that are open go on for the drain time, and ends.
func (p *Pod) Run(ctx context.Context) error {
	defer p.ns.Close()
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var accepting sync.WaitGroup
	accept := func(l *netns.Listener, serve func(context.Context, *netns.Conn)) {
		accepting.Add(1)
		go func() {
			defer accepting.Done()
			select {
			case <-p.begin:
				p.accept(work, l, serve)
			case <-ctx.Done():
			}
		}()
	}
	accept(p.outbound, p.serveOutbound)
	accept(p.plaintext, p.servePlaintext)
	accept(p.inbound, p.serveTunnel)
	accepting.Add(1)
	go func() {
		defer accepting.Done()
		p.serveDNS(ctx)
	}()
	waitUDP, endUDP := p.runUDP(work)
	quicEnded := make(chan struct{})
	go func() {
		defer close(quicEnded)
		if err := p.quic.Run(work); err != nil {
			p.log.Warn("QUIC", zap.Error(err))
		}
	}()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		p.watch(work)
	}()

	<-ctx.Done()
	p.closeListeners()
	accepting.Wait()
	waitUDP()
	grace := time.AfterFunc(udpGrace, endUDP)
	p.drain()
	grace.Stop()
	endUDP()
	cancel()
	p.conns.endAll(errors.New("the proxy is shutting down"))
	p.wg.Wait()
	<-quicEnded
	p.closeQUIC()
	<-watched
	return nil
}

// Release says that the end of Run's context means that the pod is away, and not
// that the proxy stops.
func (p *Pod) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = true
}

// drain tells peers to go elsewhere and waits for the connections to end.
func (p *Pod) drain() {
	p.mu.Lock()
	p.closing = true
	for sc := range p.tunnels {
		sc.Drain()
	}
	bound := p.cfg.Drain
	if p.away {
		bound = releaseDrain
	}
	p.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	if bound > 0 {
		ctx, cancel = context.WithTimeout(context.Background(), bound)
	}
	defer cancel()
	idle := make(chan struct{})
	go func() {
		defer close(idle)
		// What was accepted may still open its stream, as if nothing was going on.
		p.settingUp.Wait()
		var wg sync.WaitGroup
		wg.Go(func() { p.quic.Drain(ctx) })
		wg.Go(func() { p.pool3.Drain(ctx) })
		p.pool.Drain(ctx)
		wg.Wait()
		p.wg.Wait()
	}()
	select {
	case <-idle:
	case <-ctx.Done():
		p.conns.endAll(errors.New("the drain time is over"))
		p.mu.Lock()
		for sc := range p.tunnels {
			sc.Close("the drain time is over")
		}
		p.mu.Unlock()
		<-idle
	}
}

// accept serves each connection of a listener until the listener is closed.
func (p *Pod) accept(ctx context.Context, l *netns.Listener, serve func(context.Context, *netns.Conn)) {
	for {
		c, err := l.AcceptConn()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// For example no descriptors left: others may give some back.
			p.log.Warn("accept", zap.Error(err))
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
				return
			}
			continue
		}
		p.wg.Add(1)
		if l == p.outbound {
			p.settingUp.Add(1) // until serveOutbound has connected
		}
		go func() {
			defer p.wg.Done()
			defer c.Close()
			serve(ctx, c)
		}()
	}
}

// watch follows policies and workloads until ctx ends.
func (p *Pod) watch(ctx context.Context) {
	report := time.NewTicker(reportInterval)
	defer report.Stop()
	for {
		changed := p.cfg.Store.Changed()
		if w := p.workload(); w != nil {
			p.conns.recheck(p.cfg.Store.Evaluator(w))
		}
		// An address that has gone to another pod, or to nobody: no new streams there.
		gone := func(k tunnel.Key) bool { return !p.cfg.Store.Reachable(k.UID, k.Addr.Addr()) }
		p.pool.Retire(gone)
		p.pool3.Retire(gone)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-report.C:
			p.conns.report()
		}
	}
}

// workload is this pod as the control plane describes it; nil while it does not.
func (p *Pod) workload() *wds.Workload {
	return p.cfg.Store.WorkloadByName(p.info.Namespace, p.info.Name)
}

// awaitWorkload waits a little for workload.
func (p *Pod) awaitWorkload(ctx context.Context) (*wds.Workload, error) {
	var timeout <-chan time.Time
	for {
		changed := p.cfg.Store.Changed()
		if w := p.workload(); w != nil {
			return w, nil
		}
		if timeout == nil {
			timer := time.NewTimer(knownTimeout)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-changed:
		case <-timeout:
			return nil, fmt.Errorf("the control plane has not told of pod %s/%s", p.info.Namespace, p.info.Name)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Connections lists what is open.
func (p *Pod) Connections() []ConnectionInfo { return p.conns.snapshot() }

// Info names the pod.
func (p *Pod) Info() Info { return p.info }

// NamespaceID identifies the pod's network namespace.
func (p *Pod) NamespaceID() netns.ID { return p.ns.ID() }

// Identity is whose traffic this is.
func (p *Pod) Identity() identity.ID { return p.source.ID() }

// Ready waits until the pod has a certificate.
func (p *Pod) Ready(ctx context.Context) error {
	_, err := p.source.Get(ctx)
	return err
}
