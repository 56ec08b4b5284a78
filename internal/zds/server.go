package zds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	zdsapi "github.com/ambit-mesh/ambit/apis/zds"
	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/unixsock"
)

// acceptRate is how many connections a second are accepted.
const acceptRate = 5

// Result is a ztunnel's answer to an addition.
type Result struct {
	UID string
	// Namespace is the one that was handed over; the zero ID for a Keep.
	Namespace netns.ID
	// Err is nil when the pod's listeners are open.
	Err error
}

// ServerConfig configures a Server.
type ServerConfig struct {
	// Path of the socket; its directory is created if needed.
	Path string
	// OnResult hears each answer to an addition, retries included. It is called
	// from the connection's goroutine and must not block. May be nil.
	OnResult func(Result)
	// OnConnections hears how many ztunnels are connected. Same rules.
	OnConnections func(n int)
	// Logger may be nil, Registerer too.
	Logger     *zap.Logger
	Registerer prometheus.Registerer
	// RetryMin and RetryMax bound the wait before an addition that a ztunnel
	// refused is sent again; 1 s and 30 s if zero.
	RetryMin, RetryMax time.Duration
	// ReturnTime is how long after its start the server waits for a ztunnel that
	// serves the pods already, before it hands them to one that does not; 2 s if zero,
	// which is twice the longest wait of a Client.
	ReturnTime time.Duration
}

// Server is the node agent's end. It holds the wanted set of pods; each ztunnel
// is brought to it.
type Server struct {
	cfg     ServerConfig
	metrics *metrics

	mu       sync.Mutex
	pods     map[string]pod // guarded by mu
	sessions []*session     // guarded by mu; the newest last
	// listeners are the sockets that listen in the pods, by uid: held so that they
	// outlive the ztunnel that opened them. Guarded by mu.
	listeners map[string]kept

	order *order
}

// pod is one wanted pod; ns is nil for one that is only to be kept.
type pod struct {
	info Workload
	ns   *netns.Namespace
}

// id is the namespace's, zero for a kept pod.
func (p pod) id() netns.ID {
	if p.ns == nil {
		return netns.ID{}
	}
	return p.ns.ID()
}

// NewServer checks the configuration; Run listens.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.Path == "" {
		return nil, errors.New("zds server: Path must be set")
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.OnResult == nil {
		cfg.OnResult = func(Result) {}
	}
	if cfg.OnConnections == nil {
		cfg.OnConnections = func(int) {}
	}
	if cfg.RetryMin == 0 {
		cfg.RetryMin = time.Second
	}
	if cfg.RetryMax == 0 {
		cfg.RetryMax = 30 * time.Second
	}
	if cfg.ReturnTime == 0 {
		cfg.ReturnTime = 2 * time.Second
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("zds server: %w", err)
	}
	return &Server{cfg: cfg, metrics: m, pods: make(map[string]pod), listeners: make(map[string]kept), order: newOrder()}, nil
}

// Set wants a pod to be proxied. The caller keeps ns open until Remove, or until
// a later Set names another; nil means a pod whose namespace the agent does not
// have. The answer comes to OnResult.
func (s *Server) Set(uid string, w Workload, ns *netns.Namespace) error {
	if uid == "" {
		return errors.New("zds server: empty pod uid")
	}
	if _, err := encode(addRequest(uid, w, &Handover{Served: true})); err != nil {
		return fmt.Errorf("pod %s: %w", uid, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := pod{info: w, ns: ns}
	if s.pods[uid].id() != now.id() {
		s.keepLocked(uid, nil, nil) // they listen in another namespace
	}
	s.pods[uid] = now
	if n := len(s.sessions); n > 0 {
		s.sessions[n-1].enqueue(entry{uid: uid, op: opAdd})
	}
	return nil
}

// Remove wants a pod to be proxied no more. Every ztunnel is told.
func (s *Server) Remove(uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.pods[uid]; !ok {
		return
	}
	delete(s.pods, uid)
	s.keepLocked(uid, nil, nil)
	for _, sess := range s.sessions {
		sess.enqueue(entry{uid: uid, op: opDel})
	}
}

// Connections tells how many ztunnels are connected.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

// Run listens and serves until ctx ends. Ztunnels keep their pods then.
func (s *Server) Run(ctx context.Context) error {
	l, err := unixsock.Listen("unixpacket", s.cfg.Path)
	if err != nil {
		return err
	}
	defer l.Release()
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer s.letGo()
	defer wg.Wait()
	defer cancel()

	defer s.order.begin(s.cfg.ReturnTime)()
	limit := rate.NewLimiter(acceptRate, acceptRate)
	for {
		if err := limit.Wait(ctx); err != nil {
			return nil
		}
		c, err := l.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept on ZDS socket %s: %w", s.cfg.Path, err)
		}
		wg.Go(func() { s.serve(ctx, newConn(c)) })
	}
}

// letGo closes the listening sockets; ztunnels have them still.
func (s *Server) letGo() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for uid := range s.listeners {
		s.keepLocked(uid, nil, nil)
	}
}

// serve runs one connection from hello to end.
func (s *Server) serve(ctx context.Context, c *conn) {
	defer c.close()
	stop := context.AfterFunc(ctx, c.close)
	defer stop()
	hello, err := awaitHello(c)
	if err != nil {
		if ctx.Err() == nil {
			s.cfg.Logger.Warn("refused a ZDS connection", zap.Error(err))
		}
		return
	}
	sess := s.register(c, hello)
	err = sess.run(ctx)
	s.unregister(sess)
	switch {
	case ctx.Err() != nil:
	case ended(err):
		s.cfg.Logger.Info("ztunnel disconnected; its pods stay captured", zap.Int("connected", s.Connections()))
	default:
		s.cfg.Logger.Warn("ZDS connection failed", zap.Error(err))
	}
}

func awaitHello(c *conn) (*zdsapi.ZdsHello, error) {
	if err := c.unix.SetReadDeadline(time.Now().Add(Timeout)); err != nil {
		return nil, err
	}
	packet, fds, err := c.receive()
	if err != nil {
		return nil, fmt.Errorf("read ZDS hello: %w", err)
	}
	defer closeAll(fds)
	hello, err := decodeHello(packet, len(fds))
	if err != nil {
		return nil, err
	}
	return hello, c.unix.SetReadDeadline(time.Time{})
}

// register makes the connection the newest and lines up its snapshot, so that no
// later change can overtake it.
func (s *Server) register(c *conn, hello *zdsapi.ZdsHello) *session {
	s.mu.Lock()
	sess := newSession(s, c, hello.GetHandsOver())
	sess.waits = sess.handsOver && !hello.GetServes() && len(s.pods) > 0
	if sess.handsOver && hello.GetServes() {
		sess.told = s.order.serves()
	}
	for uid := range s.pods {
		sess.enqueue(entry{uid: uid, op: opAdd})
	}
	sess.enqueue(entry{op: opSnapshotSent})
	s.sessions = append(s.sessions, sess)
	n, pods := len(s.sessions), len(s.pods)
	s.mu.Unlock()
	s.metrics.connected.Inc()
	s.cfg.OnConnections(n)
	s.cfg.Logger.Info("ztunnel connected", zap.Int("connected", n), zap.Int("pods", pods))
	return sess
}

// unregister forgets a connection. The newest of those that are left gets what it
// has not taken: what went to the newest alone, or what was served by this one.
func (s *Server) unregister(sess *session) {
	s.mu.Lock()
	s.sessions = slices.DeleteFunc(s.sessions, func(x *session) bool { return x == sess })
	n := len(s.sessions)
	if n > 0 {
		heir := s.sessions[n-1]
		for uid, p := range s.pods {
			if id, ok := heir.acked[uid]; !ok || id != p.id() {
				heir.enqueue(entry{uid: uid, op: opAdd})
			}
		}
		s.inheritLocked(sess, heir)
	}
	s.mu.Unlock()
	s.metrics.connected.Dec()
	s.cfg.OnConnections(n)
}
