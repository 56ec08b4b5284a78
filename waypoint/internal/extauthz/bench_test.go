package extauthz

import (
	"context"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authpb "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
)

type canned []byte

func (c canned) Unary(context.Context, *waypoint.BackendRef, string, []byte, time.Duration) ([]byte, error) {
	return c, nil
}

// What asking costs here, without the way to the service.
func BenchmarkCheck(b *testing.B) {
	fields := message.Fields{{Name: "user-agent", Value: "curl/8"}, {Name: "accept", Value: "*/*"}, {Name: "x-request-id", Value: "0123456789abcdef"}}
	b.Run("grpc", func(b *testing.B) {
		raw := encode(b, &authpb.CheckResponse{Status: &statuspb.Status{}, HttpResponse: &authpb.CheckResponse_OkResponse{OkResponse: &authpb.OkHttpResponse{
			Headers: []*corepb.HeaderValueOption{option("x-user", "alice")},
		}}})
		c, svc, in := New(Config{Caller: canned(raw), Registerer: prometheus.NewRegistry()}), grpcService(), input(request("", fields...))
		b.ReportAllocs()
		for b.Loop() {
			out := c.Check(b.Context(), svc, in)
			out.ApplyRequest(in.Request)
		}
	})
	b.Run("http", func(b *testing.B) {
		a := &asker{answer: answer(200, "", message.Field{Name: "x-user", Value: "alice"})}
		c, svc, in := New(Config{Asker: a, Registerer: prometheus.NewRegistry()}), httpService(), input(request("", fields...))
		svc.AllowedResponseHeaders = []string{"x-user"}
		b.ReportAllocs()
		for b.Loop() {
			out := c.Check(b.Context(), svc, in)
			out.ApplyRequest(in.Request)
		}
	})
}
