package extauthz

import (
	"strings"
	"testing"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authpb "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/internal/guard"
)

// wellFormed fails when what a service wants would break a message.
func wellFormed(t *testing.T, req *message.Request, out *Outcome) {
	t.Helper()
	var resp message.Fields
	if out.Decision == Allowed {
		out.ApplyRequest(req)
		out.ApplyResponse(&resp)
	} else if out.Status < 200 || out.Status > 599 {
		t.Fatalf("refused with %d", out.Status)
	}
	if req.Method != "POST" || req.Authority != "cart.shop:8080" || !strings.HasPrefix(req.Path, "/buy") || strings.ContainsAny(req.Path, " \r\n\x00#") {
		t.Fatalf("the request became %s %s %q", req.Method, req.Authority, req.Path)
	}
	for _, f := range append(append(resp, req.Fields...), out.Fields...) {
		if _, fault := guard.Field(f.Name, f.Value); fault != guard.Fine {
			t.Fatalf("let in %q: %q", f.Name, f.Value)
		}
	}
}

func FuzzGRPCAnswer(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(encode(f, &authpb.CheckResponse{Status: &statuspb.Status{}}))
	f.Add(encode(f, &authpb.CheckResponse{Status: &statuspb.Status{Code: 7}, HttpResponse: &authpb.CheckResponse_DeniedResponse{DeniedResponse: &authpb.DeniedHttpResponse{
		Status: &typepb.HttpStatus{Code: 302}, Headers: []*corepb.HeaderValueOption{option("a", "b\r\nc"), option(":status", "200")}, Body: "x",
	}}}))
	f.Add(encode(f, &authpb.CheckResponse{HttpResponse: &authpb.CheckResponse_OkResponse{OkResponse: &authpb.OkHttpResponse{
		Headers: []*corepb.HeaderValueOption{option("x-a", "b", appended)}, HeadersToRemove: []string{"cookie", "host"},
		QueryParametersToSet: []*corepb.QueryParameter{{Key: "a b", Value: "c#d"}}, QueryParametersToRemove: []string{"item"},
	}}}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		out := grpcService().parseGRPC(raw, func(guard.Fault) {})
		pb := &authpb.CheckResponse{}
		if err := proto.Unmarshal(raw, pb); err != nil && out.Decision != Failed {
			t.Fatal("decided by what is no message")
		}
		yes := pb.GetStatus().GetCode() == 0 && (pb.GetOkResponse() != nil || pb.GetStatus() != nil && pb.GetHttpResponse() == nil)
		if out.Decision == Allowed && !yes {
			t.Fatalf("let through by %v", pb)
		}
		wellFormed(t, request(""), &out)
	})
}

func FuzzHTTPAnswer(f *testing.F) {
	f.Add(200, "x-user", "alice", "content-length", "5", "x-user")
	f.Add(302, "location", "/login", ":status", "200", "")
	f.Add(204, "x\r\ny", "a\x00", "host", "b", "host")
	f.Fuzz(func(t *testing.T, status int, n1, v1, n2, v2, allowed string) {
		svc := httpService()
		if allowed != "" {
			svc.AllowedResponseHeaders = []string{allowed}
		}
		out := svc.readHTTP(answer(status, v1, message.Field{Name: n1, Value: v1}, message.Field{Name: n2, Value: v2}, message.Field{Name: n1, Value: v2}), "POST", func(guard.Fault) {})
		if (out.Decision == Allowed) != (status == 200) {
			t.Fatalf("%d: %v", status, out.Decision)
		}
		out.authorities = authorities(svc.AllowedResponseHeaders)
		wellFormed(t, request(""), &out)
	})
}
