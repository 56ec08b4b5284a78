package waypoint_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"sync"
	"testing"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/grpc/metadata"

	"github.com/ambit-mesh/ambit/internal/testkit/spans"
)

// span is what the collector shows of one.
type span struct {
	Service, Tenant, Name string
	Attributes            map[string]string
}

// collector keeps the spans that it is sent, by trace.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer
	mu    sync.Mutex
	spans map[string][]span // guarded by mu
}

func text(attributes []*commonpb.KeyValue) map[string]string {
	out := make(map[string]string, len(attributes))
	for _, a := range attributes {
		out[a.GetKey()] = a.GetValue().GetStringValue()
	}
	return out
}

// Export implements collectorpb.TraceServiceServer.
func (c *collector) Export(ctx context.Context, req *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	var tenant string
	if md, ok := metadata.FromIncomingContext(ctx); ok && len(md["x-tenant"]) > 0 {
		tenant = md["x-tenant"][0]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range spans.Of(req) {
		id := hex.EncodeToString(s.GetTraceId())
		c.spans[id] = append(c.spans[id], span{s.Service, tenant, s.GetName(), text(s.GetAttributes())})
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

// ServeHTTP shows the first span of a name of the trace that is the path; 404 for none.
func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans[r.URL.Path[1:]] {
		if s.Name == r.URL.Query().Get("name") {
			_ = json.NewEncoder(w).Encode(s)
			return
		}
	}
	http.NotFound(w, r)
}

// The Gateway of a waypoint says where the spans of all that it serves go, and what is in
// them (GEP-4768); they are sent through the mesh.
func TestTelemetryOfAGateway(t *testing.T) {
	m := use(t)
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	m.apply(service("traced", "v1") + `
---
apiVersion: v1
kind: Service
metadata: {name: spans, namespace: app}
spec:
  selector: {app: helper}
  ports: [{name: grpc-otlp, port: 4317}, {name: http-spans, port: 9003}]
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XTelemetryPolicy
metadata: {name: spans, namespace: app}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: wp}]
  tracing:
    mode: Enabled
    provider:
      backendRef: {name: spans, port: 4317}
      headers: [{name: X-Tenant, value: app}]
    samplingRate: {numerator: 0}
    serviceName: app-waypoint
    spanName: a request
    attributes:
    - {name: user, sourceType: Header, headerName: X-User}
    - {name: team, sourceType: Literal, literalValue: testers}
    - {name: verb, sourceType: Attribute, attributeKey: http.request.method}
`)
	ask := request{URL: "http://traced/", Header: map[string]string{"traceparent": "00-" + trace + "-00f067aa0ba902b7-01", "x-user": "ada"}}
	var served span
	m.until("the collector has the span", request{URL: "http://spans:9003/" + trace + "?name=a+request"}, func(r response) bool {
		if r.Status == 200 {
			return json.Unmarshal([]byte(r.Body), &served) == nil
		}
		m.ask(ask)
		return false
	})
	if served.Service != "app-waypoint" || served.Tenant != "app" {
		t.Errorf("span of %q, of tenant %q", served.Service, served.Tenant)
	}
	for name, want := range map[string]string{"user": "ada", "team": "testers", "verb": "GET", "ambit.waypoint": "app/wp"} {
		if got := served.Attributes[name]; got != want {
			t.Errorf("attribute %s: %q, want %q", name, got, want)
		}
	}
	m.counted("ambit_trace_spans_exported_total")
}
