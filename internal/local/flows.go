package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/internal/local/control"
	"github.com/ambit-mesh/ambit/internal/local/process"
)

// labelGateway is on the pods of a waypoint (GEP-1762).
const labelGateway = "gateway.networking.k8s.io/gateway-name"

// teller is a proxy that tells of flows: its admin port is on the loopback of its
// network namespace.
type teller struct {
	name  string
	netns func() string // its path
	alive func() bool
}

// tellers gives the proxies that run.
func (s *supervisor) tellers() map[string]teller {
	all := make(map[string]teller)
	if s.options.Mesh {
		for _, n := range s.nodes {
			name, path := n.wire.Name+"/ztunnel", n.wire.NetnsPath
			all[name] = teller{name: name, netns: func() string { return path }, alive: func() bool { return true }}
		}
	}
	for _, m := range s.sweep() {
		if o := m.pod.Object(); o.Labels[labelGateway] != "" && isReady(o) {
			name := o.Namespace + "/" + o.Name
			all[name] = teller{name: name, netns: m.pod.Netns, alive: func() bool {
				select {
				case <-m.gone:
					return false
				default:
					return true
				}
			}}
		}
	}
	return all
}

// Flows streams what all proxies tell.
func (b *backend) Flows(ctx context.Context, args control.FlowsArgs, send func(control.Flow) error) error {
	var req flowpb.ObserveRequest
	if err := proto.Unmarshal(args.Request, &req); err != nil {
		return fmt.Errorf("flows: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var one sync.Mutex
	f := &follower{request: &req, send: func(v control.Flow) {
		one.Lock()
		defer one.Unlock()
		if err := send(v); err != nil {
			cancel(err)
		}
	}}
	(*supervisor)(b).askAll(ctx, f)
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// rescan is how often followers look for proxies that are new.
const rescan = 500 * time.Millisecond

// askAll asks all proxies, and when following those that come later too.
func (s *supervisor) askAll(ctx context.Context, f *follower) {
	var wg sync.WaitGroup
	defer wg.Wait()
	asked := make(map[string]bool)
	tick := time.NewTicker(rescan)
	defer tick.Stop()
	for first := true; ; first = false {
		for name, t := range s.tellers() {
			if asked[name] {
				continue
			}
			asked[name] = true
			req := f.request
			if !first {
				// It was not there before: all that it has is new.
				req = proto.CloneOf(req)
				req.Since, req.Last = timestamppb.New(s.began), 0
			}
			wg.Go(func() { f.ask(ctx, t, req) })
		}
		if !f.request.GetFollow() {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// follower passes on what proxies tell.
type follower struct {
	request *flowpb.ObserveRequest
	send    func(control.Flow) // called by one at a time
}

// ask passes on what one proxy tells; when following, until it is gone for good.
func (f *follower) ask(ctx context.Context, t teller, req *flowpb.ObserveRequest) {
	told := "" // the problem, once
	for {
		err := f.observe(ctx, t, req)
		if ctx.Err() != nil {
			return
		}
		if err != nil && err.Error() != told {
			told = err.Error()
			f.send(control.Flow{From: t.name, Problem: told})
		}
		if !req.GetFollow() || !t.alive() {
			return
		}
		// It starts again. What it tells from then on is all new.
		req = proto.CloneOf(req)
		req.Since, req.Last = timestamppb.Now(), 0
		select {
		case <-ctx.Done():
			return
		case <-time.After(rescan):
		}
	}
}

// observe asks once.
func (f *follower) observe(ctx context.Context, t teller, req *flowpb.ObserveRequest) error {
	cc, err := t.dial()
	if err != nil {
		return err
	}
	defer cc.Close()
	stream, err := flowpb.NewFlowsClient(cc).Observe(ctx, req)
	if err != nil {
		return err
	}
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		out := control.Flow{From: t.name, Lost: resp.GetLost().GetCount()}
		if r := resp.GetRecord(); r != nil {
			if out.Record, err = proto.Marshal(r); err != nil {
				return err
			}
		}
		f.send(out)
	}
}

// dial connects to the admin port when it is used.
func (t teller) dial() (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+t.name, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			ns, err := os.Open(t.netns())
			if err != nil {
				return nil, err
			}
			defer ns.Close()
			var conn net.Conn
			err = process.InNet(ns, func() error {
				// With a literal address the dialer stays in this thread.
				var d net.Dialer
				var err error
				conn, err = d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", portAdmin))
				return err
			})
			return conn, err
		}))
}
