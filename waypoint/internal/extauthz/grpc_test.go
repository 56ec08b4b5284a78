package extauthz

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authpb "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/internal/guard"
)

// grpcCaller calls over a connection of grpc-go.
type grpcCaller struct{ conn *grpc.ClientConn }

var _ Caller = grpcCaller{}

func (c grpcCaller) Unary(ctx context.Context, _ *waypoint.BackendRef, method string, request []byte, timeout time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var answer []byte
	err := c.conn.Invoke(ctx, method, request, &answer, grpc.ForceCodecV2(rawCodec{}))
	return answer, err
}

// rawCodec passes messages as they are.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// server answers as it is told and keeps what it was asked.
type server struct {
	authpb.UnimplementedAuthorizationServer
	mu     sync.Mutex
	asked  []*authpb.CheckRequest
	answer *authpb.CheckResponse
	err    error
	block  bool
}

func (s *server) Check(ctx context.Context, req *authpb.CheckRequest) (*authpb.CheckResponse, error) {
	if s.block {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, req)
	return s.answer, s.err
}

func serve(t *testing.T, s *server) grpcCaller {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	authpb.RegisterAuthorizationServer(srv, s)
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(lis) }()
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); srv.Stop(); <-done })
	return grpcCaller{conn}
}

const backendName = "infra/opa.infra.svc.cluster.local"

func grpcService() *Service {
	return &Service{
		Name: "HTTPRoute/shop/cart/0", GRPC: true, Timeout: 30 * time.Second,
		Backend: &waypoint.BackendRef{Service: backendName, Port: 9191},
	}
}

func request(body string, fields ...message.Field) *message.Request {
	r := &message.Request{
		Method: "POST", Scheme: "http", Authority: "cart.shop:8080", Path: "/buy?item=1", Version: message.HTTP2,
		Fields: append(message.Fields{{Name: "authorization", Value: "Bearer x"}, {Name: "cookie", Value: "a=b"}, {Name: "x-user", Value: "mallory"}}, fields...),
	}
	if body != "" {
		r.Body, r.ContentLength = message.BytesBody([]byte(body)), int64(len(body))
	}
	return r
}

func input(req *message.Request) Input {
	return Input{
		Request:     req,
		Source:      Peer{ID: identity.ID{TrustDomain: "cluster.local", Namespace: "web", ServiceAccount: "front"}, Address: netip.MustParseAddrPort("10.1.2.3:4567")},
		Destination: Peer{Service: "shop/cart.shop.svc.cluster.local", Address: netip.MustParseAddrPort("[::ffff:10.96.0.7]:8080")},
		Context:     map[string]string{"route": "HTTPRoute/shop/cart/0"},
		Time:        time.Unix(1_700_000_000, 5),
	}
}

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func option(key, value string, change ...func(*corepb.HeaderValueOption)) *corepb.HeaderValueOption {
	o := &corepb.HeaderValueOption{Header: &corepb.HeaderValue{Key: key, Value: value}}
	for _, c := range change {
		c(o)
	}
	return o
}

func appended(o *corepb.HeaderValueOption) { o.Append = wrapperspb.Bool(true) }

func acting(a corepb.HeaderValueOption_HeaderAppendAction) func(*corepb.HeaderValueOption) {
	return func(o *corepb.HeaderValueOption) { o.AppendAction = a }
}

// What the service is told.
func TestCheckRequest(t *testing.T) {
	s := &server{answer: &authpb.CheckResponse{Status: &statuspb.Status{}}}
	c := New(Config{Caller: serve(t, s)})
	svc := grpcService()
	svc.AllowedHeaders, svc.MaxBodyBytes = []string{"authorization", "x-list", "x-latin1"}, 100
	req := request("hello", message.Field{Name: "x-list", Value: "a"}, message.Field{Name: "x-list", Value: "b"}, message.Field{Name: "x-latin1", Value: "caf\xe9"})
	out := c.Check(t.Context(), svc, input(req))
	if !out.Allowed || out.Decision != Allowed || out.Reason != "" {
		t.Fatalf("%+v", out)
	}
	want := &authpb.AttributeContext{
		Source: &authpb.AttributeContext_Peer{
			Principal: "spiffe://cluster.local/ns/web/sa/front", Labels: map[string]string{"namespace": "web", "service_account": "front"},
			Address: address(netip.MustParseAddrPort("10.1.2.3:4567")),
		},
		Destination:       &authpb.AttributeContext_Peer{Service: "shop/cart.shop.svc.cluster.local", Address: address(netip.MustParseAddrPort("10.96.0.7:8080"))},
		ContextExtensions: map[string]string{"route": "HTTPRoute/shop/cart/0"},
		Request: &authpb.AttributeContext_Request{Time: timestamppb.New(time.Unix(1_700_000_000, 5)), Http: &authpb.AttributeContext_HttpRequest{
			Method: "POST", Scheme: "http", Host: "cart.shop:8080", Path: "/buy?item=1", Protocol: "HTTP/2", Size: 5, Body: "hello",
			Headers: map[string]string{"authorization": "Bearer x", "x-list": "a,b", "x-latin1": "caf!"},
		}},
	}
	if diff := cmp.Diff(want, s.asked[0].GetAttributes(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	// No list: all headers. A body that is not text goes as bytes.
	svc.AllowedHeaders = nil
	in := input(request("\xff\x00"))
	in.Source = Peer{}
	c.Check(t.Context(), svc, in)
	a := s.asked[1].GetAttributes()
	if h := a.GetRequest().GetHttp(); len(h.GetHeaders()) != 3 || string(h.GetRawBody()) != "\xff\x00" || h.GetBody() != "" {
		t.Errorf("%v", h)
	}
	if a.GetSource().GetPrincipal() != "" || a.GetSource().GetAddress() != nil || len(a.GetSource().GetLabels()) != 0 {
		t.Errorf("a client without identity: %v", a.GetSource())
	}
}

// What the service wants is done to the request and the response.
func TestAllowedChanges(t *testing.T) {
	s := &server{answer: &authpb.CheckResponse{Status: &statuspb.Status{}, HttpResponse: &authpb.CheckResponse_OkResponse{OkResponse: &authpb.OkHttpResponse{
		Headers: []*corepb.HeaderValueOption{
			option("X-User", "alice"), option("x-role", "a"), option("x-role", "b", appended),
			option("x-user", "nobody", acting(corepb.HeaderValueOption_ADD_IF_ABSENT)), option("x-new", "1", acting(corepb.HeaderValueOption_ADD_IF_ABSENT)),
			option("x-absent", "1", acting(corepb.HeaderValueOption_OVERWRITE_IF_EXISTS)), option("cookie", "c=d", acting(corepb.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD)),
			option(":path", "/admin"), option("host", "evil"), option("content-length", "0"), option("x-split", "a\r\nx: y"),
		},
		HeadersToRemove:         []string{"Authorization", "host", ":method", "transfer-encoding"},
		ResponseHeadersToAdd:    []*corepb.HeaderValueOption{option("x-checked", "yes"), option("set-cookie", "s=1", appended), option("connection", "close")},
		QueryParametersToSet:    []*corepb.QueryParameter{{Key: "item", Value: "2 & 3"}},
		QueryParametersToRemove: []string{"secret"},
	}}}}
	c := New(Config{Caller: serve(t, s), Registerer: prometheus.NewRegistry()})
	req := request("")
	req.Path = "/buy?a=%20b&item=1&s%65cret=x&item=9&"
	out := c.Check(t.Context(), grpcService(), input(req))
	if !out.Allowed {
		t.Fatalf("%+v", out)
	}
	out.ApplyRequest(req)
	want := message.Fields{{Name: "cookie", Value: "c=d"}, {Name: "x-user", Value: "alice"}, {Name: "x-role", Value: "a"}, {Name: "x-role", Value: "b"}, {Name: "x-new", Value: "1"}}
	if diff := cmp.Diff(want, req.Fields); diff != "" {
		t.Error(diff)
	}
	if req.Path != "/buy?a=%20b&item=2+%26+3" || req.Authority != "cart.shop:8080" || req.Method != "POST" {
		t.Errorf("%s %s %s", req.Method, req.Authority, req.Path)
	}
	resp := message.Fields{{Name: "x-checked", Value: "no"}, {Name: "set-cookie", Value: "t=2"}}
	out.ApplyResponse(&resp)
	if diff := cmp.Diff(message.Fields{{Name: "x-checked", Value: "yes"}, {Name: "set-cookie", Value: "t=2"}, {Name: "set-cookie", Value: "s=1"}}, resp); diff != "" {
		t.Error(diff)
	}
	for fault, n := range map[guard.Fault]float64{guard.Pseudo: 4, guard.Connection: 3, guard.BadValue: 1} {
		if got := testutil.ToFloat64(c.metrics.fields.WithLabelValues(backendName, string(fault))); got != n {
			t.Errorf("%v fields ignored for %s, want %v", got, fault, n)
		}
	}
}

func TestDenied(t *testing.T) {
	s := &server{answer: &authpb.CheckResponse{Status: &statuspb.Status{Code: 7}, HttpResponse: &authpb.CheckResponse_DeniedResponse{DeniedResponse: &authpb.DeniedHttpResponse{
		Status: &typepb.HttpStatus{Code: 302}, Body: "go and log in",
		Headers: []*corepb.HeaderValueOption{option("Location", "https://login"), option("transfer-encoding", "chunked")},
	}}}}
	c := New(Config{Caller: serve(t, s)})
	out := c.Check(t.Context(), grpcService(), input(request("")))
	if out.Allowed || out.Decision != Denied || out.Status != 302 || string(out.Body) != "go and log in" ||
		!strings.Contains(out.Reason, "HTTPRoute/shop/cart/0") || !strings.Contains(out.Reason, backendName) {
		t.Errorf("%+v", out)
	}
	if diff := cmp.Diff(message.Fields{{Name: "location", Value: "https://login"}}, out.Fields); diff != "" {
		t.Error(diff)
	}
}

// Only an answer that says yes, and nothing else, is a yes.
func TestAnswers(t *testing.T) {
	okResp := &authpb.CheckResponse_OkResponse{OkResponse: &authpb.OkHttpResponse{}}
	no := func(status typepb.StatusCode) *authpb.CheckResponse_DeniedResponse {
		return &authpb.CheckResponse_DeniedResponse{DeniedResponse: &authpb.DeniedHttpResponse{Status: &typepb.HttpStatus{Code: status}}}
	}
	st := func(code int32) *statuspb.Status { return &statuspb.Status{Code: code} }
	failure := &authpb.CheckResponse_ErrorResponse{ErrorResponse: &authpb.DeniedHttpResponse{Status: &typepb.HttpStatus{Code: 502}}}
	for _, c := range []struct {
		name   string
		in     *authpb.CheckResponse
		closed Decision
		status int
		open   Decision
	}{
		{"status ok", &authpb.CheckResponse{Status: st(0)}, Allowed, 0, Allowed},
		{"ok_response", &authpb.CheckResponse{HttpResponse: okResp}, Allowed, 0, Allowed},
		{"both", &authpb.CheckResponse{Status: st(0), HttpResponse: okResp}, Allowed, 0, Allowed},
		{"nothing", &authpb.CheckResponse{}, Failed, 503, FailedOpen},
		{"status", &authpb.CheckResponse{Status: st(16)}, Denied, 403, Denied},
		{"negative status", &authpb.CheckResponse{Status: st(-1)}, Denied, 403, Denied},
		{"ok_response, status not ok", &authpb.CheckResponse{Status: st(7), HttpResponse: okResp}, Denied, 403, Denied},
		{"denied_response, status ok", &authpb.CheckResponse{Status: st(0), HttpResponse: no(401)}, Denied, 401, Denied},
		{"denied_response alone", &authpb.CheckResponse{HttpResponse: no(0)}, Denied, 403, Denied},
		{"denied with 101", &authpb.CheckResponse{HttpResponse: no(101)}, Denied, 403, Denied},
		{"denied with 1000", &authpb.CheckResponse{HttpResponse: no(1000)}, Denied, 403, Denied},
		{"error_response", &authpb.CheckResponse{HttpResponse: failure}, Failed, 502, FailedOpen},
		{"error_response, status ok", &authpb.CheckResponse{Status: st(0), HttpResponse: failure}, Failed, 502, FailedOpen},
	} {
		t.Run(c.name, func(t *testing.T) {
			svc := grpcService()
			ignored := func(guard.Fault) {}
			if out := svc.parseGRPC(encode(t, c.in), ignored); out.Decision != c.closed || out.Status != c.status {
				t.Errorf("closed: %v %d, want %v %d", out.Decision, out.Status, c.closed, c.status)
			}
			svc.FailOpen = true
			if out := svc.parseGRPC(encode(t, c.in), ignored); out.Decision != c.open {
				t.Errorf("open: %v, want %v", out.Decision, c.open)
			}
		})
	}
}

// A service that cannot be asked refuses, unless that is meant otherwise, with a
// reason and a count.
func TestAway(t *testing.T) {
	failing := func(s *server) Caller { return serve(t, s) }
	for _, c := range []struct {
		name   string
		caller Caller
		change func(*Service)
		want   string
	}{
		{"error", failing(&server{err: errors.New("database is down")}), nil, "database is down"},
		{"late", failing(&server{block: true}), func(s *Service) { s.Timeout = 10 * time.Millisecond }, "DeadlineExceeded"},
		{"no caller", nil, nil, "calls no services"},
		{"reference", nil, func(s *Service) { s.Backend.Invalid = "Service infra/opa is not there" }, "infra/opa is not there"},
		{"no protocol", nil, func(s *Service) {
			*s = *FromProto(s.Name, &waypoint.ExternalAuthorization{Backend: s.Backend})
		}, "external_authorization.protocol is not known"},
		{"gibberish", gibberish{0xff}, nil, "reading the answer"},
		{"huge", make(gibberish, maxAnswer+1), nil, "more than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ck := New(Config{Caller: c.caller, Registerer: prometheus.NewRegistry()})
			svc := grpcService()
			if c.change != nil {
				c.change(svc)
			}
			out := ck.Check(t.Context(), svc, input(request("")))
			if out.Allowed || out.Decision != Failed || out.Status != 503 || !strings.Contains(out.Reason, c.want) || !strings.Contains(out.Reason, svc.Name) {
				t.Errorf("closed: %+v", out)
			}
			svc.FailOpen = true
			out = ck.Check(t.Context(), svc, input(request("")))
			if !out.Allowed || out.Decision != FailedOpen || !strings.Contains(out.Reason, c.want) {
				t.Errorf("open: %+v", out)
			}
			for _, d := range []Decision{Failed, FailedOpen} {
				if got := testutil.ToFloat64(ck.metrics.decisions.WithLabelValues(backendName, d.String())); got != 1 {
					t.Errorf("%v counted as %v", got, d)
				}
			}
		})
	}
}

type gibberish []byte

func (g gibberish) Unary(context.Context, *waypoint.BackendRef, string, []byte, time.Duration) ([]byte, error) {
	return g, nil
}
