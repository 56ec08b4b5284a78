package gather

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
)

// A proxy whose stream broke is asked again after retry, and then less and less often.
const (
	retry    = 500 * time.Millisecond
	maxRetry = 8 * time.Second
)

// overlap is how much before the end of what was told a stream is taken up again:
// records of connections that end at a time are not kept in the order of their ends.
const overlap = 2 * time.Second

// ask passes on what one proxy tells; when following, until it is gone. Done is told
// once whether it could be reached.
func (r *Reader) ask(ctx context.Context, p Proxy, gone <-chan struct{}, req *flowpb.ObserveRequest, done func(reached bool)) {
	told := "" // the problem, once
	pause, newest := retry, time.Time{}
	once := sync.OnceFunc(func() { done(false) })
	for {
		broke, err := r.observe(ctx, p, req, func() {
			done(true)
			done = func(bool) {}
			told, pause = "", retry
		}, &newest)
		if ctx.Err() != nil {
			return
		}
		// What breaks while following may be the end of the proxy, or of the way to it.
		if err != nil && err.Error() != told && (!broke || !req.GetFollow()) && !closed(gone) {
			told = err.Error()
			r.tell(Told{From: p.Name, Problem: told})
		}
		once()
		if !req.GetFollow() {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-gone:
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, maxRetry)
		req = proto.CloneOf(req)
		req.Last, req.Since = 0, timestamppb.New(r.began)
		if from := newest.Add(-overlap); from.After(r.began) {
			req.Since = timestamppb.New(from)
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// observe asks once. Open is called when the proxy is reached; newest becomes the
// latest end of what it tells. Broke is true where the way to a proxy that was reached
// is what failed.
func (r *Reader) observe(ctx context.Context, p Proxy, req *flowpb.ObserveRequest, open func(), newest *time.Time) (broke bool, err error) {
	var way dialing
	cc, err := grpc.NewClient("passthrough:///proxy", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		// A node that is gone says nothing.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 20 * time.Second}),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return way.keep(p.Dial(ctx)) }))
	if err != nil {
		return false, err
	}
	defer cc.Close()
	stream, err := flowpb.NewFlowsClient(cc).Observe(ctx, req)
	if err != nil {
		return false, way.explain(err)
	}
	open()
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return status.Code(err) == codes.Unavailable, way.explain(err)
		}
		if lost := resp.GetLost().GetCount(); lost > 0 {
			r.tell(Told{From: p.Name, Lost: lost})
		}
		if rec := resp.GetRecord(); rec != nil {
			if end := rec.GetStart().AsTime().Add(rec.GetDuration().AsDuration()); end.After(*newest) {
				*newest = end
			}
			r.tell(Told{From: p.Name, Record: rec})
		}
	}
}

// dialing keeps what went wrong on the way to a proxy, which gRPC tells less well.
type dialing struct {
	mu  sync.Mutex
	err error
}

func (d *dialing) keep(conn net.Conn, err error) (net.Conn, error) {
	if err != nil {
		d.fail(err)
		return nil, err
	}
	return &watched{Conn: conn, d: d}, nil
}

func (d *dialing) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		d.err = err
	}
}

// explain gives the cause of an error of gRPC.
func (d *dialing) explain(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return d.err
	}
	return errors.New(status.Convert(err).Message())
}

// watched is a connection whose first error is kept.
type watched struct {
	net.Conn
	d *dialing
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil {
		w.d.fail(err)
	}
	return n, err
}
