package zds

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	zdsapi "github.com/ambit-mesh/ambit/apis/zds"
	"github.com/ambit-mesh/ambit/internal/netns"
)

// Handler is what a proxy does with the pods it is handed. Calls come one at a
// time, from the goroutine of Run. Their context ends after Timeout, when the
// agent gives up waiting. An error goes back to the agent, which tries again.
type Handler interface {
	// Add starts proxying a pod and returns when its listeners are open. The
	// handler owns ns whatever it returns. A uid it has already, with the same
	// ns.ID(), is to be left as it is; with another, to be replaced.
	Add(ctx context.Context, uid string, w Workload, ns *netns.Namespace) error
	// Keep says that a pod is to be proxied still, though the agent has no
	// namespace to hand over.
	Keep(ctx context.Context, uid string) error
	// Del stops proxying a pod: it accepts nothing more and lets what is under way
	// come to its end, without being waited for. A uid it does not have is no
	// error.
	Del(ctx context.Context, uid string) error
	// Retain ends the list that follows each connect: pods that were not named
	// are to be dropped.
	Retain(ctx context.Context, named map[string]struct{}) error
}

// ClientConfig configures a Client.
type ClientConfig struct {
	// Path of the agent's socket.
	Path    string
	Handler Handler
	// Logger may be nil, Registerer too.
	Logger     *zap.Logger
	Registerer prometheus.Registerer
	// BackoffMin and BackoffMax bound the wait between connection attempts;
	// 100 ms and 1 s if zero.
	BackoffMin, BackoffMax time.Duration
}

// Client is the ztunnel's end.
type Client struct {
	cfg       ClientConfig
	successor Successor // the handler, if it is one
	metrics   *metrics
	synced    chan struct{}
	once      sync.Once
}

// NewClient checks the configuration; Run does the work.
func NewClient(cfg ClientConfig) (*Client, error) {
	if cfg.Path == "" || cfg.Handler == nil {
		return nil, errors.New("zds client: Path and Handler must be set")
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.BackoffMin == 0 {
		cfg.BackoffMin = 100 * time.Millisecond
	}
	if cfg.BackoffMax == 0 {
		cfg.BackoffMax = time.Second
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("zds client: %w", err)
	}
	successor, _ := cfg.Handler.(Successor)
	return &Client{cfg: cfg, successor: successor, metrics: m, synced: make(chan struct{})}, nil
}

// Synced is closed when the first snapshot is complete.
func (c *Client) Synced() <-chan struct{} { return c.synced }

// Run connects, and connects again, until ctx ends. Pods stay proxied while the
// agent is away.
func (c *Client) Run(ctx context.Context) error {
	wait := c.cfg.BackoffMin
	for {
		progress, err := c.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if progress {
			wait = c.cfg.BackoffMin
		}
		c.cfg.Logger.Warn("no connection to the node agent; captured pods stay as they are",
			zap.String("socket", c.cfg.Path), zap.Duration("retry_in", wait), zap.Error(err))
		timer := time.NewTimer(wait/2 + rand.N(wait/2+1))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		wait = min(wait*2, c.cfg.BackoffMax)
	}
}

// session serves one connection. progress is true if the agent sent a snapshot.
func (c *Client) session(ctx context.Context) (progress bool, err error) {
	conn, err := dialConn(ctx, c.cfg.Path)
	if err != nil {
		return false, err
	}
	defer conn.close()
	stop := context.AfterFunc(ctx, conn.close)
	defer stop()
	hello := &zdsapi.ZdsHello{Version: zdsapi.Version_V1}
	if c.successor != nil {
		hello.HandsOver, hello.Serves = true, c.successor.Serving()
	}
	if err := conn.send(hello, nil); err != nil {
		return false, fmt.Errorf("send ZDS hello: %w", err)
	}
	c.metrics.connected.Inc()
	defer c.metrics.connected.Dec()
	c.cfg.Logger.Info("connected to the node agent", zap.String("socket", c.cfg.Path))

	named := make(map[string]struct{})
	for {
		packet, fds, err := conn.receive()
		if err != nil && !errors.Is(err, ErrMalformed) {
			return progress, fmt.Errorf("read from ZDS socket: %w", err)
		}
		var req *zdsapi.WorkloadRequest
		if err == nil {
			req, err = decodeRequest(packet, len(fds))
		}
		var own []int
		if err != nil {
			closeAll(fds)
		} else if own, err = c.handle(ctx, req, fds, named); err == nil && req.GetSnapshotSent() != nil {
			progress, named = true, nil
			c.once.Do(func() { close(c.synced) })
		}
		c.metrics.ack(err)
		if err != nil {
			c.cfg.Logger.Error("request of the node agent failed", zap.Error(err))
		}
		err = conn.send(ackFor(err), nil, own...)
		closeAll(own)
		if err != nil {
			return progress, fmt.Errorf("send ZDS ack: %w", err)
		}
	}
}

// handle serves one request; fds are closed or owned by the handler when it
// returns. named collects the snapshot, nil after it. own go with the ack.
func (c *Client) handle(ctx context.Context, req *zdsapi.WorkloadRequest, fds []int, named map[string]struct{}) (own []int, err error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	name := func(uid string) {
		if named != nil {
			named[uid] = struct{}{}
		}
	}
	h := c.cfg.Handler
	switch p := req.Payload.(type) {
	case *zdsapi.WorkloadRequest_Add:
		// Named even if it fails: a pod that is proxied must not be dropped for
		// an addition that is tried again.
		name(p.Add.GetUid())
		ns, err := netns.FromFD(fds[0])
		if err != nil {
			closeAll(fds[1:])
			return nil, fmt.Errorf("pod %s: %w", p.Add.GetUid(), err)
		}
		info := p.Add.GetWorkloadInfo()
		w := Workload{Name: info.GetName(), Namespace: info.GetNamespace(), ServiceAccount: info.GetServiceAccount()}
		if ho := p.Add.GetHandover(); ho != nil && c.successor != nil {
			return c.takeOver(ctx, p.Add.GetUid(), w, ns, Handover{Listeners: fds[1:], Served: ho.GetServed()})
		}
		closeAll(fds[1:])
		return nil, h.Add(ctx, p.Add.GetUid(), w, ns)
	case *zdsapi.WorkloadRequest_Keep:
		name(p.Keep.GetUid())
		return nil, h.Keep(ctx, p.Keep.GetUid())
	case *zdsapi.WorkloadRequest_Del:
		delete(named, p.Del.GetUid())
		return nil, h.Del(ctx, p.Del.GetUid())
	default:
		if named == nil {
			return nil, malformed("a second SnapshotSent on one connection")
		}
		return nil, h.Retain(ctx, named)
	}
}

// takeOver adds a pod with the sockets that listen in it.
func (c *Client) takeOver(ctx context.Context, uid string, w Workload, ns *netns.Namespace, h Handover) ([]int, error) {
	listeners, err := listenersOf(ns, h.Listeners)
	if err != nil {
		// Its own sockets do as well.
		c.cfg.Logger.Warn("listening sockets are not taken over", zap.String("uid", uid), zap.Error(err))
		h.Served = false
	}
	h.Listeners = listeners
	own, err := c.successor.TakeOver(ctx, uid, w, ns, h)
	if err != nil || len(own) > maxListeners {
		closeAll(own)
		own = nil
	}
	return own, err
}
