package report

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	nodepb "github.com/ambit-mesh/ambit/apis/node"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plane is a control plane that hands each report to the test, and acknowledges
// when the test says so.
type plane struct {
	nodepb.UnimplementedNodeServiceServer
	reports chan *nodepb.ReportRequest
	acks    chan error // nil acknowledges, an error ends the stream
}

func (p *plane) Report(stream nodepb.NodeService_ReportServer) error {
	for {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		select {
		case p.reports <- req:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		select {
		case err = <-p.acks:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		if err == nil {
			err = stream.Send(&nodepb.ReportResponse{Sequence: req.GetSequence()})
		}
		if err != nil {
			return err
		}
	}
}

func newBed(t *testing.T) (*Reporter, *plane) {
	t.Helper()
	p := &plane{reports: make(chan *nodepb.ReportRequest), acks: make(chan error)}
	srv := grpc.NewServer()
	nodepb.RegisterNodeServiceServer(srv, p)
	l := bufconn.Listen(1 << 16)
	go func() { _ = srv.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///plane", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	r := New(Config{Conn: conn, Logger: zap.NewNop(), BackoffMin: time.Millisecond, BackoffMax: 5 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
		conn.Close()
		srv.Stop()
	})
	return r, p
}

func (p *plane) next(t *testing.T) *nodepb.ReportRequest {
	t.Helper()
	select {
	case r := <-p.reports:
		return r
	case <-time.After(10 * time.Second):
		t.Fatal("no report")
		return nil
	}
}

func text(r *nodepb.ReportRequest) string {
	var b strings.Builder
	if r.GetSnapshot() {
		b.WriteString("snapshot")
	}
	for _, p := range r.GetPods() {
		b.WriteString(" " + p.GetUid() + "=" + p.GetState().String())
		if p.GetMessage() != "" {
			b.WriteString("(" + p.GetMessage() + ")")
		}
	}
	return b.String()
}

func TestReports(t *testing.T) {
	r, p := newBed(t)
	want := func(s string) {
		t.Helper()
		if got := text(p.next(t)); got != s {
			t.Errorf("got %q, want %q", got, s)
		}
	}
	want("snapshot")
	r.Set("a", nodepb.PodState_RELEASED, "")
	r.Set("b", nodepb.PodState_FAILED, "why")
	p.acks <- nil
	want(" a=RELEASED b=FAILED(why)")
	// While an acknowledgement is awaited, changes gather.
	r.Set("a", nodepb.PodState_CAPTURED, "")
	r.Set("b", nodepb.PodState_CAPTURED, "")
	r.Set("c", nodepb.PodState_CAPTURED, "")
	r.Forget("c")
	p.acks <- nil
	want(" a=CAPTURED b=CAPTURED")
	p.acks <- nil
	r.Set("b", nodepb.PodState_CAPTURED, "") // no change
	r.Set("a", nodepb.PodState_RELEASED, "")
	want(" a=RELEASED")
	// The stream breaks: the next one begins with everything.
	p.acks <- errors.New("restarting")
	want("snapshot a=RELEASED b=CAPTURED")
	p.acks <- nil
	r.Set("a", nodepb.PodState_CAPTURED, "")
	want(" a=CAPTURED")
	p.acks <- nil
}
