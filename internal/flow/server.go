package flow

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
)

// Server answers observers of one Log.
type Server struct {
	flowpb.UnimplementedFlowsServer
	log       *Log
	node      string
	lost      prometheus.Counter
	observers prometheus.Gauge
}

// NewServer gives a server for the log of a process on the given node.
func NewServer(l *Log, node string, r prometheus.Registerer) *Server {
	s := &Server{
		log: l, node: node,
		lost:      prometheus.NewCounter(prometheus.CounterOpts{Name: "ambit_flow_records_lost_total", Help: "Flow records that observers did not get, because they read too slowly."}),
		observers: prometheus.NewGauge(prometheus.GaugeOpts{Name: "ambit_flow_observers", Help: "Observers of flow records that are connected."}),
	}
	r.MustRegister(s.lost, s.observers)
	return s
}

// maxObservers bounds what observers can cost a proxy.
const maxObservers = 32

// Handler gives a gRPC server that serves s. It is meant to be served over HTTP/2
// by the admin port, and starts nothing by itself.
func (s *Server) Handler() *grpc.Server {
	g := grpc.NewServer(grpc.MaxConcurrentStreams(maxObservers), grpc.MaxRecvMsgSize(1<<20))
	flowpb.RegisterFlowsServer(g, s)
	return g
}

// Path is the prefix of the paths that Handler answers.
const Path = "/ambit.flow.v1.Flows/"

// Observe implements flowpb.FlowsServer.
func (s *Server) Observe(req *flowpb.ObserveRequest, stream grpc.ServerStreamingServer[flowpb.ObserveResponse]) error {
	f, err := NewFilter(req.GetInclude(), req.GetExclude())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if req.GetSince() != nil && req.GetSince().CheckValid() != nil {
		return status.Error(codes.InvalidArgument, "since: not a time")
	}
	s.observers.Inc()
	defer s.observers.Dec()
	wake := s.log.attach()
	defer s.log.detach(wake)
	c := &cursor{server: s, filter: f, opened: req.GetOpened(), stream: stream}
	end := s.log.next.Load()
	if err := c.past(req, end); err != nil || !req.GetFollow() {
		return err
	}
	return c.follow(stream.Context(), end, wake)
}

// cursor is one observer's place in the log.
type cursor struct {
	server *Server
	filter *Filter
	opened bool
	stream grpc.ServerStreamingServer[flowpb.ObserveResponse]
	record Record // the one that is being looked at
}

// past sends the kept records below end that were asked for.
func (c *cursor) past(req *flowpb.ObserveRequest, end uint64) error {
	from, l := c.server.log.oldest(), c.server.log
	var since time.Time
	if req.GetSince() != nil {
		since = req.GetSince().AsTime()
	} else if req.GetLast() == 0 && req.GetFollow() {
		return nil // only what comes
	}
	var picked []*flowpb.FlowRecord
	// Newest first, so that the last ones that match are found.
	for n := end; n > from; n-- {
		if last := req.GetLast(); last > 0 && len(picked) == int(last) {
			break
		}
		if l.read(n-1, &c.record) != kept || c.record.Start.Add(c.record.Duration).Before(since) {
			continue
		}
		if p := c.match(); p != nil {
			picked = append(picked, p)
		}
	}
	for i := len(picked) - 1; i >= 0; i-- {
		if err := c.send(picked[i]); err != nil {
			return err
		}
	}
	return nil
}

// follow sends what comes from record n on, until ctx ends.
func (c *cursor) follow(ctx context.Context, n uint64, wake <-chan struct{}) error {
	l := c.server.log
	var lost uint64
	for {
		if oldest := l.oldest(); oldest > n {
			lost, n = lost+oldest-n, oldest
		}
		switch l.read(n, &c.record) {
		case kept:
			n++
		case missing:
			lost++
			n++
			c.record = Record{}
		case pending:
			select {
			case <-ctx.Done():
				return nil
			case <-wake:
				continue
			}
		}
		if lost > 0 {
			c.server.lost.Add(float64(lost))
			if err := c.stream.Send(&flowpb.ObserveResponse{Response: &flowpb.ObserveResponse_Lost{Lost: &flowpb.Lost{Count: lost}}}); err != nil {
				return err
			}
			lost = 0
		}
		if p := c.match(); p != nil {
			if err := c.send(p); err != nil {
				return err
			}
		}
	}
}

// match gives the record that was read if the observer wants it.
func (c *cursor) match() *flowpb.FlowRecord {
	if c.record.Start.IsZero() || c.record.Opened && !c.opened {
		return nil
	}
	p := c.record.Proto(c.server.node)
	if !c.filter.Match(p) {
		return nil
	}
	return p
}

func (c *cursor) send(p *flowpb.FlowRecord) error {
	return c.stream.Send(&flowpb.ObserveResponse{Response: &flowpb.ObserveResponse_Record{Record: p}})
}
