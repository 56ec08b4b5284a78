package xdsclient

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// Update is what one response changed. First marks the first response of a
// stream's life for the type: after a reconnect the client has told the server
// what it holds, so even then it is a difference.
type Update struct {
	Resources []*discoveryv3.Resource
	Removed   []string
}

// Rejected is returned by a handler that could not use some resources. The
// others of the same update count as applied.
type Rejected struct {
	// Errors by resource name.
	Errors map[string]error
}

// Error lists the names in order.
func (r *Rejected) Error() string {
	var b strings.Builder
	for i, name := range slices.Sorted(maps.Keys(r.Errors)) {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s: %v", name, r.Errors[name])
	}
	return b.String()
}

// Subscription is one resource type and what is done with it. Handle is called
// from one goroutine, in the order of the stream. An error other than *Rejected
// rejects the whole update.
type Subscription struct {
	TypeURL string
	Handle  func(Update) error
}

// Config says to whom the client talks and as whom.
type Config struct {
	// Node identifies the client, for example
	// ztunnel~10.0.0.1~ztunnel-abcde.ambit-system~ambit-system.svc.cluster.local.
	Node *corev3.Node
	// Logger and Metrics may be left out.
	Logger  *zap.Logger
	Metrics *Metrics
	// BackoffMin and BackoffMax bound the wait between streams; 10 ms and 15 s
	// when zero.
	BackoffMin, BackoffMax time.Duration
}

// Client is a delta ADS client.
type Client struct {
	cfg  Config
	cc   grpc.ClientConnInterface
	subs []*subscription

	mu        sync.Mutex
	connected bool      // guarded by mu
	since     time.Time // of connected; guarded by mu
	lastErr   error     // guarded by mu
}

type subscription struct {
	Subscription
	// versions of what is held, by name. Used by the stream's goroutine only.
	versions map[string]string
	synced   chan struct{}
	once     sync.Once
}

// New makes a client that runs over cc. It starts nothing.
func New(cc grpc.ClientConnInterface, cfg Config, subs ...Subscription) (*Client, error) {
	if cfg.Node.GetId() == "" {
		return nil, errors.New("xds client: node id must be set")
	}
	if len(subs) == 0 {
		return nil, errors.New("xds client: no resource type to subscribe to")
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.BackoffMin == 0 {
		cfg.BackoffMin = 10 * time.Millisecond
	}
	if cfg.BackoffMax == 0 {
		cfg.BackoffMax = 15 * time.Second
	}
	c := &Client{cfg: cfg, cc: cc}
	for _, s := range subs {
		c.subs = append(c.subs, &subscription{Subscription: s, versions: make(map[string]string), synced: make(chan struct{})})
	}
	return c, nil
}

// Restore puts in place what is known from before, as an update would. The control
// plane is told of it, and answers with what differs and what is gone. It comes before
// Run, and does not count as synced.
func (c *Client) Restore(typeURL string, resources []*discoveryv3.Resource) error {
	for _, s := range c.subs {
		if s.TypeURL != typeURL {
			continue
		}
		err := s.Handle(Update{Resources: resources})
		var rejected *Rejected
		if err != nil && !errors.As(err, &rejected) {
			return err
		}
		for _, r := range resources {
			// What was rejected is asked for again.
			if rejected == nil || rejected.Errors[r.GetName()] == nil {
				s.versions[r.GetName()] = r.GetVersion()
			}
		}
		return nil
	}
	return fmt.Errorf("xds client: %s is not subscribed to", typeURL)
}

// Synced is closed when the first update of the type has been handled. It is nil
// for a type that is not subscribed.
func (c *Client) Synced(typeURL string) <-chan struct{} {
	for _, s := range c.subs {
		if s.TypeURL == typeURL {
			return s.synced
		}
	}
	return nil
}

// Status tells whether a stream is up, since when it has been so (or not), and
// why the last one ended.
func (c *Client) Status() (connected bool, since time.Time, lastErr error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.connected, c.since, c.lastErr
}

func (c *Client) setStatus(connected bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if connected != c.connected || c.since.IsZero() {
		c.since = time.Now()
	}
	c.connected, c.lastErr = connected, err
}

// Run keeps a stream open until ctx ends.
func (c *Client) Run(ctx context.Context) error {
	wait := c.cfg.BackoffMin
	for {
		received, err := c.stream(ctx)
		if ctx.Err() != nil {
			return nil
		}
		c.setStatus(false, err)
		c.cfg.Metrics.terminated(err)
		if received {
			wait = c.cfg.BackoffMin
		}
		delay := wait/2 + rand.N(wait)
		c.cfg.Logger.Warn("control plane stream ended", zap.Error(err), zap.Duration("retryIn", delay))
		timer := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		wait = min(wait*2, c.cfg.BackoffMax)
	}
}

// bulk is a response so large that its decoding is felt in the memory of a node: a first
// sync of a large mesh takes several times what it leaves, and the runtime would keep that.
const bulk = 5000

// stream runs one stream to its end and reports whether it ever brought an update.
func (c *Client) stream(ctx context.Context) (received bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(c.cc).DeltaAggregatedResources(ctx)
	if err != nil {
		return false, err
	}
	for i, s := range c.subs {
		req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: s.TypeURL, InitialResourceVersions: maps.Clone(s.versions)}
		if i == 0 {
			req.Node = c.cfg.Node
		}
		if err := stream.Send(req); err != nil {
			return false, streamErr(stream, err)
		}
	}
	for {
		resp, err := stream.Recv()
		if err != nil {
			return received, err
		}
		if !received {
			received = true
			c.setStatus(true, nil)
			c.cfg.Logger.Info("control plane stream is up")
		}
		n := len(resp.GetResources())
		if err := stream.Send(c.handle(resp)); err != nil {
			return received, streamErr(stream, err)
		}
		if n >= bulk {
			debug.FreeOSMemory()
		}
	}
}

// streamErr finds the reason behind a failed Send, which itself only says EOF.
func streamErr(stream grpc.ClientStream, err error) error {
	if rerr := stream.RecvMsg(new(discoveryv3.DeltaDiscoveryResponse)); rerr != nil {
		return rerr
	}
	return err
}

// handle applies one response and gives the answer to it.
func (c *Client) handle(resp *discoveryv3.DeltaDiscoveryResponse) *discoveryv3.DeltaDiscoveryRequest {
	req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: resp.GetTypeUrl(), ResponseNonce: resp.GetNonce()}
	i := slices.IndexFunc(c.subs, func(s *subscription) bool { return s.TypeURL == resp.GetTypeUrl() })
	if i < 0 {
		req.ErrorDetail = &status.Status{Code: int32(codes.InvalidArgument), Message: "not subscribed to " + resp.GetTypeUrl()}
		return req
	}
	s := c.subs[i]
	c.cfg.Metrics.received(s.TypeURL, proto.Size(resp))
	removed := append(slices.Clone(resp.GetRemovedResources()), removedNames(resp)...)
	err := s.Handle(Update{Resources: resp.GetResources(), Removed: removed})
	var rejected *Rejected
	partly := errors.As(err, &rejected)
	if err == nil || partly {
		for _, r := range resp.GetResources() {
			if !partly || rejected.Errors[r.GetName()] == nil {
				s.versions[r.GetName()] = r.GetVersion()
			}
		}
		for _, name := range removed {
			delete(s.versions, name)
		}
	}
	if err != nil {
		c.cfg.Metrics.rejected(s.TypeURL)
		c.cfg.Logger.Error("rejected resources from the control plane", zap.String("type", s.TypeURL), zap.Error(err))
		req.ErrorDetail = &status.Status{Code: int32(codes.InvalidArgument), Message: err.Error()}
		return req
	}
	s.once.Do(func() { close(s.synced) })
	return req
}

func removedNames(resp *discoveryv3.DeltaDiscoveryResponse) []string {
	var names []string
	for _, n := range resp.GetRemovedResourceNames() {
		names = append(names, n.GetName())
	}
	return names
}
