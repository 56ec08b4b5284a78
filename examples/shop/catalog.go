package main

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// products is what the shop sells.
var products = map[string]string{
	"mug":  "Ambit mug, 9.90 EUR",
	"sock": "pair of Ambit socks, 4.50 EUR",
}

const describeMethod = "/shop.Catalog/Describe"

// describe asks the catalog for a product.
func describe(ctx context.Context, conn *grpc.ClientConn, sku string) (string, error) {
	out := new(wrapperspb.StringValue)
	if err := conn.Invoke(ctx, describeMethod, wrapperspb.String(sku), out); err != nil {
		return "", err
	}
	return out.Value, nil
}

// catalogServer is the service as grpc sees it; its messages are well-known
// types, so that no code has to be generated.
type catalogServer interface {
	Describe(context.Context, *wrapperspb.StringValue) (*wrapperspb.StringValue, error)
}

type catalog struct{}

// Describe gives name and price of a product.
func (catalog) Describe(_ context.Context, sku *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	product, ok := products[sku.Value]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "no product %q", sku.Value)
	}
	return wrapperspb.String(product), nil
}

//nolint:revive // the order of arguments is grpc's
func describeHandler(srv any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	in := new(wrapperspb.StringValue)
	if err := dec(in); err != nil {
		return nil, err
	}
	return srv.(catalogServer).Describe(ctx, in)
}

// runCatalog serves gRPC.
func runCatalog(ctx context.Context) error {
	l, err := net.Listen("tcp", setting("LISTEN", ":50051"))
	if err != nil {
		return err
	}
	// Connections are renewed often, as behind any load balancer that clients
	// should follow.
	srv := grpc.NewServer(grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: time.Second, MaxConnectionAgeGrace: 5 * time.Second}))
	srv.RegisterService(&grpc.ServiceDesc{
		ServiceName: "shop.Catalog", HandlerType: (*catalogServer)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Describe", Handler: describeHandler}},
	}, catalog{})
	healthv1.RegisterHealthServer(srv, health.NewServer())
	stop := context.AfterFunc(ctx, func() {
		time.Sleep(drain)
		srv.GracefulStop()
	})
	defer stop()
	return srv.Serve(l)
}
