package nodes

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// pollInterval is how often the credentials file is looked at. A look costs one
// stat, and works on file systems and mounts that give no notice of changes.
const pollInterval = time.Second

// Config is what an Authenticator is made of.
type Config struct {
	// File holds the credentials. Exclusive with Prover.
	File string
	// Prover tells whom tokens prove, where no file does.
	Prover Prover
	// ClusterID is what callers that send a clusterid must send.
	ClusterID string
	Log       *zap.Logger
	Metrics   prometheus.Registerer
}

// Prover tells whom tokens prove.
type Prover interface {
	// Prove gives the caller, or a gRPC status: Unauthenticated for a token that
	// proves nobody, Unavailable where that cannot be found out now.
	Prove(ctx context.Context, token string) (Caller, error)
	// Live says whether a caller that was proved is still there.
	Live(c Caller) bool
}

// Authenticator tells who a caller is.
type Authenticator struct {
	cfg      Config
	failures *prometheus.CounterVec
	quiet    *rate.Limiter // bounds what strangers make us log

	mu      sync.Mutex
	table   table                // guarded by mu
	stamp   string               // guarded by mu; what the file looked like
	streams map[*stream]struct{} // guarded by mu; authenticated and open
	closed  bool                 // guarded by mu
}

// stream is an open call and what it was let in by.
type stream struct {
	hash   [sha256.Size]byte
	caller Caller
	cancel context.CancelCauseFunc
}

// What ends streams: errWithdrawn those of a credential that is no longer in
// the file, errStopping all.
var (
	errWithdrawn = status.Error(codes.Unauthenticated, "the credential of this stream has been withdrawn")
	errStopping  = status.Error(codes.Unavailable, "the control plane is stopping; connect again")
)

// NewAuthenticator reads the credentials file, which must be good.
func NewAuthenticator(cfg Config) (*Authenticator, error) {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	a := &Authenticator{
		cfg: cfg, streams: make(map[*stream]struct{}), quiet: rate.NewLimiter(1, 20),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_node_authentication_failures_total", Help: "Calls without a valid node credential, by reason.",
		}, []string{"reason"}),
	}
	if cfg.Metrics != nil {
		if err := cfg.Metrics.Register(a.failures); err != nil {
			return nil, fmt.Errorf("nodes: metrics: %w", err)
		}
	}
	if cfg.Prover != nil {
		return a, nil
	}
	a.stamp = stampOf(cfg.File)
	var err error
	if a.table, err = readTable(cfg.File); err != nil {
		return nil, err
	}
	return a, nil
}

func stampOf(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(info.ModTime().UnixNano(), info.Size())
}

// Run follows the credentials file until ctx ends.
func (a *Authenticator) Run(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			a.reload()
		}
	}
}

// reload takes a changed file; a bad one leaves what is in use. Without a file it
// ends the streams of callers that are gone.
func (a *Authenticator) reload() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cfg.Prover != nil {
		for s := range a.streams {
			if !a.cfg.Prover.Live(s.caller) {
				a.cfg.Log.Info("caller gone: ending a stream", zap.String("caller", s.caller.Name()))
				s.cancel(errWithdrawn)
			}
		}
		return
	}
	stamp := stampOf(a.cfg.File)
	if stamp == a.stamp {
		return
	}
	a.stamp = stamp
	t, err := readTable(a.cfg.File)
	if err != nil {
		a.cfg.Log.Error("node credentials changed but are not usable; the former ones stay valid", zap.Error(err))
		return
	}
	a.table = t
	for s := range a.streams {
		if caller, ok := t.caller(s.hash); !ok || !caller.equal(s.caller) {
			a.cfg.Log.Warn("credential withdrawn: ending a stream", zap.String("caller", s.caller.Name()))
			s.cancel(errWithdrawn)
		}
	}
	a.cfg.Log.Info("node credentials reloaded", zap.Int("credentials", len(t)))
}

// authenticate reads a call's metadata.
func (a *Authenticator) authenticate(ctx context.Context) (caller Caller, hash [sha256.Size]byte, err error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if ids := md.Get("clusterid"); len(ids) > 0 && a.cfg.ClusterID != "" && (len(ids) > 1 || ids[0] != a.cfg.ClusterID) {
		return caller, hash, a.refuse(ctx, "cluster", fmt.Sprintf("clusterid %q: this control plane is for cluster %q", clip(strings.Join(ids, ",")), a.cfg.ClusterID))
	}
	values := md.Get("authorization")
	if len(values) != 1 {
		return caller, hash, a.refuse(ctx, "missing", "no node credential: send metadata authorization: Bearer <node token>")
	}
	token, ok := strings.CutPrefix(values[0], "Bearer ")
	if !ok || token == "" {
		return caller, hash, a.refuse(ctx, "malformed", "authorization metadata: want Bearer <node token>")
	}
	if a.cfg.Prover != nil {
		if caller, err = a.cfg.Prover.Prove(ctx, token); err != nil {
			reason := "unknown"
			if status.Code(err) == codes.Unavailable {
				reason = "unavailable"
			}
			a.note(ctx, reason, status.Convert(err).Message())
		}
		return caller, hash, err
	}
	hash = sha256.Sum256([]byte(token))
	if caller, ok = a.current().caller(hash); !ok {
		// A pod may call a moment after its credential was written.
		a.reload()
		caller, ok = a.current().caller(hash)
	}
	if !ok {
		return caller, hash, a.refuse(ctx, "unknown", "the bearer token is not that of a node or waypoint of this mesh; see the control plane's node credentials file")
	}
	return caller, hash, nil
}

func (a *Authenticator) current() table {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.table
}

func (a *Authenticator) refuse(ctx context.Context, reason, message string) error {
	a.note(ctx, reason, message)
	return status.Error(codes.Unauthenticated, message)
}

// note counts and logs a call that is not let in.
func (a *Authenticator) note(ctx context.Context, reason, message string) {
	a.failures.WithLabelValues(reason).Inc()
	if a.quiet.Allow() {
		fields := []zap.Field{zap.String("reason", reason), zap.String("detail", message)}
		if p, ok := peer.FromContext(ctx); ok {
			fields = append(fields, zap.Stringer("peer", p.Addr))
		}
		a.cfg.Log.Warn("call refused", fields...)
	}
}

// Unary lets in calls of nodes and workloads.
func (a *Authenticator) Unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	caller, _, err := a.authenticate(ctx)
	if err != nil {
		return nil, err
	}
	return next(NewContext(ctx, caller), req)
}

// Stream lets in streams of nodes and workloads, for as long as their credential is valid.
func (a *Authenticator) Stream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	caller, hash, err := a.authenticate(ss.Context())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(NewContext(ss.Context(), caller))
	defer cancel(nil)
	s := &stream{hash: hash, caller: caller, cancel: cancel}
	if err := a.enter(s); err != nil {
		return err
	}
	defer a.leave(s)
	err = next(srv, &authenticated{ss, ctx})
	if cause := context.Cause(ctx); errors.Is(cause, errWithdrawn) || errors.Is(cause, errStopping) {
		return cause
	}
	return err
}

// enter registers a stream, unless its credential has gone in the meantime.
func (a *Authenticator) enter(s *stream) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return errStopping
	}
	if a.cfg.Prover != nil {
		if !a.cfg.Prover.Live(s.caller) {
			return errWithdrawn
		}
	} else if caller, ok := a.table.caller(s.hash); !ok || !caller.equal(s.caller) {
		return errWithdrawn
	}
	a.streams[s] = struct{}{}
	return nil
}

// Close ends all streams and lets no new one begin.
func (a *Authenticator) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	for s := range a.streams {
		s.cancel(errStopping)
	}
}

func (a *Authenticator) leave(s *stream) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.streams, s)
}

// authenticated is a stream whose context carries the caller.
type authenticated struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *authenticated) Context() context.Context { return s.ctx }
