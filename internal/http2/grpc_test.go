package http2_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/ambit-mesh/ambit/internal/http2"
)

// shop is a gRPC service of every kind of call.
type shop struct {
	testpb.UnimplementedTestServiceServer
	cancelled chan struct{}
}

func (s *shop) UnaryCall(ctx context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if st := in.GetResponseStatus(); st.GetCode() != 0 {
		return nil, status.Error(codes.Code(st.GetCode()), st.GetMessage())
	}
	md, _ := metadata.FromIncomingContext(ctx)
	_ = grpc.SetHeader(ctx, metadata.Pairs("back", strings.Join(md.Get("there"), ",")))
	_ = grpc.SetTrailer(ctx, metadata.Pairs("behind-bin", "\x00\x01\xff"))
	return &testpb.SimpleResponse{Payload: &testpb.Payload{Body: make([]byte, in.GetResponseSize())}}, nil
}

func (s *shop) StreamingOutputCall(in *testpb.StreamingOutputCallRequest, out grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	for _, p := range in.GetResponseParameters() {
		if err := out.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: make([]byte, p.GetSize())}}); err != nil {
			return err
		}
	}
	return nil
}

func (s *shop) StreamingInputCall(in grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse]) error {
	sum := 0
	for {
		m, err := in.Recv()
		if err == io.EOF {
			return in.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: int32(sum)})
		}
		if err != nil {
			return err
		}
		sum += len(m.GetPayload().GetBody())
	}
}

func (s *shop) FullDuplexCall(both grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	for {
		m, err := both.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			if status.Code(err) == codes.Canceled {
				close(s.cancelled)
			}
			return err
		}
		if st := m.GetResponseStatus(); st.GetCode() != 0 {
			return status.Error(codes.Code(st.GetCode()), st.GetMessage())
		}
		if err := both.Send(&testpb.StreamingOutputCallResponse{Payload: m.GetPayload()}); err != nil {
			return err
		}
	}
}

// grpcThroughProxy is a client that reaches s through our server and our client.
func grpcThroughProxy(t testing.TB, s *shop) testpb.TestServiceClient {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gs := grpc.NewServer()
	testpb.RegisterTestServiceServer(gs, s)
	served := make(chan struct{})
	go func() { defer close(served); _ = gs.Serve(l) }()
	t.Cleanup(func() { gs.Stop(); <-served })
	addr := serve(t, http2.Config{}, forward(dialOurs(t, l.Addr().String(), http2.Config{})))
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return testpb.NewTestServiceClient(conn)
}

func payload(n int) *testpb.Payload { return &testpb.Payload{Body: make([]byte, n)} }

func TestGRPC(t *testing.T) {
	s := &shop{cancelled: make(chan struct{})}
	client := grpcThroughProxy(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	t.Run("unary", func(t *testing.T) { grpcUnary(ctx, t, client) })
	t.Run("an error is trailers alone", func(t *testing.T) {
		_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{Code: 5, Message: "no such ä\n%"}})
		if st := status.Convert(err); st.Code() != codes.NotFound || st.Message() != "no such ä\n%" {
			t.Errorf("%v", err)
		}
		if _, err := client.UnimplementedCall(ctx, &testpb.Empty{}); status.Code(err) != codes.Unimplemented {
			t.Errorf("%v", err)
		}
	})
	t.Run("server streaming", func(t *testing.T) {
		in := &testpb.StreamingOutputCallRequest{}
		for i := range 200 {
			in.ResponseParameters = append(in.ResponseParameters, &testpb.ResponseParameters{Size: int32(i * 500)})
		}
		stream, err := client.StreamingOutputCall(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			if m, err := stream.Recv(); err != nil || len(m.GetPayload().GetBody()) != i*500 {
				t.Fatalf("message %d: %v", i, err)
			}
		}
		if _, err := stream.Recv(); err != io.EOF {
			t.Errorf("the end: %v", err)
		}
	})
	t.Run("client streaming", func(t *testing.T) {
		stream, err := client.StreamingInputCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			if err := stream.Send(&testpb.StreamingInputCallRequest{Payload: payload(i * 500)}); err != nil {
				t.Fatal(err)
			}
		}
		if sum, err := stream.CloseAndRecv(); err != nil || sum.GetAggregatedPayloadSize() != 199*200/2*500 {
			t.Errorf("%v, %v", sum, err)
		}
	})
	t.Run("ping-pong and half-close", func(t *testing.T) { grpcPingPong(ctx, t, client) })
	t.Run("the server ends early", func(t *testing.T) {
		stream, err := client.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(&testpb.StreamingOutputCallRequest{ResponseStatus: &testpb.EchoStatus{Code: 9, Message: "enough"}})
		if _, err := stream.Recv(); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("%v", err)
		}
	})
	t.Run("deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		stream, err := client.StreamingInputCall(ctx)
		if err == nil {
			err = stream.RecvMsg(&testpb.StreamingInputCallResponse{})
		}
		if status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("%v", err)
		}
	})
	t.Run("cancellation reaches the server", func(t *testing.T) {
		ctx, cancel := context.WithCancel(ctx)
		stream, err := client.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(&testpb.StreamingOutputCallRequest{Payload: payload(1)})
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		cancel()
		<-s.cancelled
	})
}

func grpcUnary(ctx context.Context, t *testing.T, client testpb.TestServiceClient) {
	for _, size := range []int{0, 10, 70000, 3 << 20} {
		var header, trailer metadata.MD
		ctx := metadata.AppendToOutgoingContext(ctx, "there", fmt.Sprint(size))
		out, err := client.UnaryCall(ctx, &testpb.SimpleRequest{ResponseSize: int32(size), Payload: payload(size)}, grpc.Header(&header), grpc.Trailer(&trailer))
		if err != nil {
			t.Fatal(err)
		}
		if len(out.GetPayload().GetBody()) != size || header.Get("back")[0] != fmt.Sprint(size) || trailer.Get("behind-bin")[0] != "\x00\x01\xff" {
			t.Errorf("%d: %d bytes, %v, %v", size, len(out.GetPayload().GetBody()), header, trailer)
		}
	}
}

func grpcPingPong(ctx context.Context, t *testing.T, client testpb.TestServiceClient) {
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		if err := stream.Send(&testpb.StreamingOutputCallRequest{Payload: payload(i)}); err != nil {
			t.Fatal(err)
		}
		if m, err := stream.Recv(); err != nil || len(m.GetPayload().GetBody()) != i {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	_ = stream.CloseSend()
	if _, err := stream.Recv(); err != io.EOF {
		t.Errorf("the end: %v", err)
	}
}
