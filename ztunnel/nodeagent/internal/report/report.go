// Package report tells the control plane which pods of the node are captured
// (apis/node, NodeService.Report): all of them at the beginning of each stream,
// changes after that, one message at a time, each acknowledged before the next.
package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"

	nodepb "github.com/ambit-mesh/ambit/apis/node"
)

// ackTimeout bounds the wait for an acknowledgement, which comes when the report
// is part of what the control plane distributes.
const ackTimeout = 30 * time.Second

// Config configures a Reporter.
type Config struct {
	Conn   grpc.ClientConnInterface
	Logger *zap.Logger
	// BackoffMin and BackoffMax bound the wait between streams; 50 ms and 10 s
	// if zero.
	BackoffMin, BackoffMax time.Duration
}

// Reporter holds the states to report.
type Reporter struct {
	cfg  Config
	wake chan struct{} // capacity 1

	mu     sync.Mutex
	states map[string]*nodepb.PodState // guarded by mu; messages are not changed
	dirty  map[string]struct{}         // guarded by mu; not yet sent on this stream
}

// New makes a Reporter; Run sends.
func New(cfg Config) *Reporter {
	if cfg.BackoffMin == 0 {
		cfg.BackoffMin = 50 * time.Millisecond
	}
	if cfg.BackoffMax == 0 {
		cfg.BackoffMax = 10 * time.Second
	}
	return &Reporter{cfg: cfg, wake: make(chan struct{}, 1), states: make(map[string]*nodepb.PodState), dirty: make(map[string]struct{})}
}

// Set sets the state of a pod.
func (r *Reporter) Set(uid string, state nodepb.PodState_State, message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.states[uid]; old != nil && old.GetState() == state && old.GetMessage() == message {
		return
	}
	r.states[uid] = &nodepb.PodState{Uid: uid, State: state, Message: message}
	r.dirty[uid] = struct{}{}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Forget drops a pod that is gone. The control plane learns of that elsewhere.
func (r *Reporter) Forget(uid string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.states, uid)
	delete(r.dirty, uid)
}

// Run reports until ctx ends.
func (r *Reporter) Run(ctx context.Context) error {
	wait := r.cfg.BackoffMin
	for {
		acked, err := r.stream(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if acked {
			wait = r.cfg.BackoffMin
		}
		r.cfg.Logger.Warn("reports to the control plane are interrupted", zap.Duration("retry_in", wait), zap.Error(err))
		timer := time.NewTimer(wait/2 + rand.N(wait/2+1))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		wait = min(wait*2, r.cfg.BackoffMax)
	}
}

// stream runs one stream to its end. acked says that its snapshot was accepted.
func (r *Reporter) stream(ctx context.Context) (acked bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := nodepb.NewNodeServiceClient(r.cfg.Conn).Report(ctx)
	if err != nil {
		return false, fmt.Errorf("open stream: %w", err)
	}
	acks := make(chan uint64)
	ended := make(chan error, 1)
	received := make(chan struct{})
	go func() {
		defer close(received)
		ended <- receive(ctx, stream, acks)
	}()
	defer func() {
		cancel()
		<-received
	}()
	for seq := uint64(1); ; seq++ {
		req := r.next(seq == 1)
		if req == nil {
			select {
			case <-ctx.Done():
				return acked, ctx.Err()
			case err := <-ended:
				return acked, err
			case <-r.wake:
			}
			seq--
			continue
		}
		req.Sequence = seq
		if err := stream.Send(req); err != nil {
			if errors.Is(err, io.EOF) {
				err = <-ended
			}
			return acked, fmt.Errorf("send: %w", err)
		}
		if err := await(ctx, seq, acks, ended); err != nil {
			return acked, err
		}
		acked = true
	}
}

// next takes what is to be sent, nil if there is nothing.
func (r *Reporter) next(snapshot bool) *nodepb.ReportRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	req := &nodepb.ReportRequest{Snapshot: snapshot}
	for uid, s := range r.states {
		if _, dirty := r.dirty[uid]; dirty || snapshot {
			req.Pods = append(req.Pods, s)
		}
	}
	clear(r.dirty)
	if !snapshot && len(req.Pods) == 0 {
		return nil
	}
	slices.SortFunc(req.Pods, func(a, b *nodepb.PodState) int {
		if a.GetUid() < b.GetUid() {
			return -1
		}
		return 1
	})
	return req
}

func await(ctx context.Context, seq uint64, acks <-chan uint64, ended <-chan error) error {
	timer := time.NewTimer(ackTimeout)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-ended:
		return err
	case <-timer.C:
		return fmt.Errorf("report %d was not acknowledged within %s", seq, ackTimeout)
	case got := <-acks:
		if got != seq {
			return fmt.Errorf("acknowledgement of report %d, want %d", got, seq)
		}
		return nil
	}
}

func receive(ctx context.Context, stream nodepb.NodeService_ReportClient, acks chan<- uint64) error {
	for {
		resp, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		select {
		case acks <- resp.GetSequence():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
