package main

import (
	"context"
	"net"
	"strings"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ambit-mesh/ambit/internal/testkit/spans"
)

// method is the only one of the service. It takes google.protobuf.Empty and gives the fields as a StringValue.
const method = "/ambit.test.Echo/Echo"

var service = grpc.ServiceDesc{
	ServiceName: "ambit.test.Echo",
	HandlerType: (*any)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: "Echo", Handler: handle}},
}

// answer gives the fields for a request.
type answer func(ctx context.Context) []string

func handle(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // grpc's order
	if err := decode(new(emptypb.Empty)); err != nil {
		return nil, err
	}
	return wrapperspb.String(strings.Join(srv.(answer)(ctx), "\n")), nil
}

// seen are the fields of a gRPC request.
func (s settings) seen(ctx context.Context, port int) []string {
	from := ""
	if p, ok := peer.FromContext(ctx); ok {
		from, _, _ = net.SplitHostPort(p.Addr.String())
	}
	md, _ := metadata.FromIncomingContext(ctx)
	out := append(s.common(port, from), "Proto=GRPC", "Host="+strings.Join(md[":authority"], ","))
	for _, name := range names(md) {
		for _, v := range md[name] {
			out = append(out, "RequestHeader="+name+":"+v)
		}
	}
	return out
}

// collector takes spans by OTLP, and counts them by service and name.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer
	count *counter
}

// Export implements collectorpb.TraceServiceServer.
func (c *collector) Export(_ context.Context, req *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	for _, s := range spans.Of(req) {
		c.count.add(s.Service + "/" + s.GetName())
	}
	return new(collectorpb.ExportTraceServiceResponse), nil
}
