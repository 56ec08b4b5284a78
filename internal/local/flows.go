package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"google.golang.org/protobuf/proto"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/internal/flow/gather"
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
}

// tellers gives the proxies that run. Of waypoints these are the ready ones, and
// those among were.
func (s *supervisor) tellers(were map[string]bool) map[string]teller {
	all := make(map[string]teller)
	if s.options.Mesh {
		for _, n := range s.nodes {
			name, path := n.wire.Name+"/ztunnel", n.wire.NetnsPath
			all[name] = teller{name: name, netns: func() string { return path }}
		}
	}
	for _, m := range s.sweep() {
		o := m.pod.Object()
		if name := o.Namespace + "/" + o.Name; o.Labels[labelGateway] != "" && (isReady(o) || were[name]) {
			all[name] = teller{name: name, netns: m.pod.Netns}
		}
	}
	return all
}

// proxies finds the proxies for those who read what they tell.
type proxies struct {
	*supervisor
	// were are those given last: a waypoint tells until it is gone.
	were map[string]bool
}

// Proxies implements gather.Source.
func (p *proxies) Proxies(context.Context) ([]gather.Proxy, error) {
	var all []gather.Proxy
	now := make(map[string]bool)
	for name, t := range p.tellers(p.were) {
		now[name] = true
		all = append(all, gather.Proxy{Name: name, Dial: t.dial})
	}
	p.were = now
	return all, nil
}

// rescan is how often followers look for proxies that are new.
const rescan = 500 * time.Millisecond

// Changed implements gather.Source.
func (p *proxies) Changed(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(rescan):
	}
}

// Flows streams what all proxies tell.
func (b *backend) Flows(ctx context.Context, args control.FlowsArgs, send func(control.Flow) error) error {
	var req flowpb.ObserveRequest
	if err := proto.Unmarshal(args.Request, &req); err != nil {
		return fmt.Errorf("flows: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := &gather.Reader{Source: &proxies{supervisor: (*supervisor)(b)}, Request: &req, Each: func(t gather.Told) {
		v := control.Flow{From: t.From, Lost: t.Lost, Problem: t.Problem, Change: t.Change}
		var err error
		if t.Record != nil {
			v.Record, err = proto.Marshal(t.Record)
		}
		if err == nil {
			err = send(v)
		}
		if err != nil {
			cancel(err)
		}
	}}
	if err := r.Run(ctx); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// dial connects to the admin port.
func (t teller) dial(ctx context.Context) (net.Conn, error) {
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
}
