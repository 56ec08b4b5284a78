package waypoint_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// helper is the services that a waypoint asks: rate limits on 8081, authorization
// by gRPC on 9000 and by HTTP on 9001, keys on 9002; and one that it sends spans to, on
// 4317, which shows them on 9003. Nobody listens on 9999, and
// nobody takes the connections to 9393.
func helper() error {
	errs := make(chan error, 6)
	if err := full(9393); err != nil {
		return err
	}
	serve := func(addr string, register func(*grpc.Server)) {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			errs <- err
			return
		}
		s := grpc.NewServer()
		register(s)
		errs <- s.Serve(l)
	}
	go serve(":8081", func(s *grpc.Server) {
		rlsv3.RegisterRateLimitServiceServer(s, &limiter{used: make(map[string]uint32)})
	})
	go serve(":9000", func(s *grpc.Server) { authv3.RegisterAuthorizationServer(s, gatekeeper{}) })
	go func() { errs <- http.ListenAndServe(":9001", http.HandlerFunc(gatekeeperHTTP)) }()
	go func() { errs <- http.ListenAndServe(":9002", new(keyServer)) }()
	c := &collector{spans: make(map[string][]span)}
	go serve(":4317", func(s *grpc.Server) { collectorpb.RegisterTraceServiceServer(s, c) })
	go func() { errs <- http.ListenAndServe(":9003", c) }()
	return <-errs
}

// helpers are the Services of the helper, and one of which there is no pod.
const helpers = `
---
apiVersion: v1
kind: Service
metadata: {name: helper, namespace: app}
spec:
  selector: {app: helper}
  ports: [{name: grpc-rls, port: 8081}, {name: grpc-auth, port: 9000}, {name: http-auth, port: 9001}, {name: http-keys, port: 9002}, {name: grpc-none, port: 9999}]
---
apiVersion: v1
kind: Service
metadata: {name: away, namespace: app}
spec:
  selector: {app: away}
  ports: [{name: grpc, port: 9000}]
`

// limiter counts requests, and never forgets.
type limiter struct {
	rlsv3.UnimplementedRateLimitServiceServer
	mu   sync.Mutex
	used map[string]uint32 // guarded by mu
}

// ShouldRateLimit goes by the limits that the descriptors bring. In the domain
// "hang" it does not answer.
func (l *limiter) ShouldRateLimit(ctx context.Context, req *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	if req.GetDomain() == "hang" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	out := &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OK}
	for _, d := range req.GetDescriptors() {
		key := req.GetDomain()
		for _, e := range d.GetEntries() {
			key += " " + e.GetKey() + "=" + e.GetValue()
		}
		l.used[key]++
		limit := d.GetLimit().GetRequestsPerUnit()
		s := &rlsv3.RateLimitResponse_DescriptorStatus{
			Code:         rlsv3.RateLimitResponse_OK,
			CurrentLimit: &rlsv3.RateLimitResponse_RateLimit{RequestsPerUnit: limit, Unit: rlsv3.RateLimitResponse_RateLimit_HOUR},
		}
		if used := l.used[key]; used > limit {
			s.Code, out.OverallCode = rlsv3.RateLimitResponse_OVER_LIMIT, rlsv3.RateLimitResponse_OVER_LIMIT
		} else {
			s.LimitRemaining = limit - used
		}
		out.Statuses = append(out.Statuses, s)
	}
	return out, nil
}

// gatekeeper lets in what says "x-pass: yes".
type gatekeeper struct {
	authv3.UnimplementedAuthorizationServer
}

// Check tells the backend who asked and how long the body was.
func (gatekeeper) Check(_ context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	set := func(k, v string) *corev3.HeaderValueOption {
		return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: k, Value: v}, AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD}
	}
	h := req.GetAttributes().GetRequest().GetHttp()
	if h.GetHeaders()["x-pass"] != "yes" {
		return &authv3.CheckResponse{
			Status: &statuspb.Status{Code: int32(codes.PermissionDenied)},
			HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
				Status: &typev3.HttpStatus{Code: typev3.StatusCode_PaymentRequired}, Body: "not without a pass",
				Headers: []*corev3.HeaderValueOption{set("x-denied", "gatekeeper")},
			}},
		}, nil
	}
	return &authv3.CheckResponse{
		Status: &statuspb.Status{},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			Headers: []*corev3.HeaderValueOption{
				set("x-checked", req.GetAttributes().GetSource().GetPrincipal()), set("x-checked-body", fmt.Sprint(len(h.GetBody())+len(h.GetRawBody()))),
				set("x-checked-path", h.GetMethod()+" "+h.GetPath()),
			},
			ResponseHeadersToAdd: []*corev3.HeaderValueOption{set("x-gate", "open")},
		}},
	}, nil
}

func gatekeeperHTTP(w http.ResponseWriter, r *http.Request) {
	n, _ := io.Copy(io.Discard, r.Body)
	if r.Header.Get("x-pass") != "yes" {
		w.Header().Set("www-authenticate", "Pass")
		w.Header().Set("x-denied", "gatekeeper")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, "not without a pass")
		return
	}
	w.Header().Set("x-checked-path", r.Method+" "+r.URL.RequestURI())
	w.Header().Set("x-checked-body", fmt.Sprint(n))
	w.Header().Set("x-secret", "not for the backend")
	if strings.HasSuffix(r.URL.Path, "/nocontent") {
		w.WriteHeader(http.StatusNoContent)
	}
}

// policy is a policy of ours in namespace app.
func policy(kind, name, spec string) string {
	return fmt.Sprintf(`
---
apiVersion: ambit-mesh.io/v1alpha1
kind: %s
metadata: {name: %s, namespace: app}
spec:
  %s
`, kind, name, strings.ReplaceAll(strings.TrimSpace(spec), "\n", "\n  "))
}
