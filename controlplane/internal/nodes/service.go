package nodes

import (
	"context"
	"errors"
	"io"

	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"

	nodepb "github.com/ambit-mesh/ambit/apis/node"
	"github.com/ambit-mesh/ambit/controlplane/compile"
)

const (
	// maxPods bounds one report; kubelets stop at a few hundred.
	maxPods    = 10_000
	maxUID     = 128
	maxMessage = 1024
)

// Sink takes capture reports in. Report returns when what was reported is part
// of what is distributed.
type Sink interface {
	Report(ctx context.Context, r compile.CaptureReport) error
}

// Service takes the reports of node agents.
type Service struct {
	nodepb.UnimplementedNodeServiceServer
	sink Sink
	log  *zap.Logger
}

// NewService gives the service. The calls' contexts must carry the node.
func NewService(sink Sink, log *zap.Logger) *Service { return &Service{sink: sink, log: log} }

// Report takes the reports of one agent, one at a time.
func (s *Service) Report(stream nodepb.NodeService_ReportServer) error {
	ctx := stream.Context()
	caller, ok := FromContext(ctx)
	if !ok {
		return status.Error(codes.Unauthenticated, "no node credential")
	}
	if caller.Workload != nil {
		s.log.Warn("capture report refused: the token is a workload's", zap.String("caller", caller.Name()))
		return status.Errorf(codes.PermissionDenied, "the token of %s proves a workload: only a node's agent may report", caller.Name())
	}
	node := caller.Node
	requests, ended := make(chan *nodepb.ReportRequest), make(chan error, 1)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Receiving ends when this returns, because that ends the stream under it.
	go func() { ended <- receive(ctx, stream, requests) }()
	for first := true; ; first = false {
		var req *nodepb.ReportRequest
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-ended:
			return err
		case req = <-requests:
		}
		if first && !req.GetSnapshot() {
			return status.Error(codes.InvalidArgument, "the first report of a stream must be a snapshot")
		}
		report, err := parseReport(node, req)
		if err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		for _, p := range report.Pods {
			if p.Message != "" {
				s.log.Warn("pod not captured", zap.String("node", node), zap.String("uid", string(p.UID)), zap.String("reason", p.Message))
			}
		}
		if err := s.sink.Report(ctx, report); err != nil {
			return status.Error(codes.Unavailable, err.Error())
		}
		if err := stream.Send(&nodepb.ReportResponse{Sequence: req.GetSequence()}); err != nil {
			return err
		}
	}
}

func receive(ctx context.Context, stream nodepb.NodeService_ReportServer, to chan<- *nodepb.ReportRequest) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case to <- req:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// parseReport checks a message. A pod that could not be captured is one that is
// not.
func parseReport(node string, req *nodepb.ReportRequest) (compile.CaptureReport, error) {
	report := compile.CaptureReport{Node: node, Snapshot: req.GetSnapshot()}
	if n := len(req.GetPods()); n > maxPods {
		return report, errors.New("pods: more than 10000 in one report; send several")
	}
	for _, p := range req.GetPods() {
		if uid := p.GetUid(); uid == "" || len(uid) > maxUID {
			return report, errors.New("pods[].uid: want 1 to 128 bytes")
		}
		c := compile.PodCapture{UID: types.UID(p.GetUid())}
		switch p.GetState() {
		case nodepb.PodState_CAPTURED:
			c.Captured = true
		case nodepb.PodState_FAILED:
			if c.Message = p.GetMessage(); c.Message == "" {
				c.Message = "the node agent gave no reason"
			}
			c.Message = c.Message[:min(len(c.Message), maxMessage)]
		case nodepb.PodState_RELEASED:
		default:
			return report, errors.New("pods[].state: want RELEASED, CAPTURED or FAILED")
		}
		report.Pods = append(report.Pods, c)
	}
	return report, nil
}
