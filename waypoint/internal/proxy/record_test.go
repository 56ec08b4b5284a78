package proxy

import (
	"context"
	"reflect"
	"testing"
	"time"

	waypointpb "github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/waypoint/internal/frontend"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// nowhere is a backend of spans that keeps nothing.
type nowhere struct{ trace.Recording }

// Start implements trace.Backend.
func (n nowhere) Start(_, _ trace.Context, _ string, _ trace.Kind, _ time.Time) trace.Recording {
	return n
}

// Run implements trace.Backend.
func (nowhere) Run(context.Context) error { return nil }

// traced is a request to a service with that telemetry, which is sampled.
func traced(t *testing.T, tel *waypointpb.Telemetry, f message.Fields) *exchange {
	t.Helper()
	pb := &waypointpb.Frontend{Namespace: "shop", Name: "web", Tracing: &waypointpb.Tracing{Sampling: trace.One}, Telemetry: tel}
	routes, problems := route.Compile(pb)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return &exchange{
		p: &Proxy{cfg: Config{Tracer: trace.NewTracer(nowhere{})}}, entry: &frontend.Entry{Routes: routes, Config: pb},
		req: &message.Request{Method: "GET", Path: "/", Fields: f},
	}
}

// Attributes have what the client has sent, whatever the waypoint makes of it, and
// leave out what it has not.
func TestAttributesAreTheClients(t *testing.T) {
	header := func(name string) *waypointpb.SpanAttribute {
		return &waypointpb.SpanAttribute{Name: "the " + name, Source: &waypointpb.SpanAttribute_Header{Header: name}}
	}
	x := traced(t, &waypointpb.Telemetry{Attributes: []*waypointpb.SpanAttribute{
		header("x-none"), header("x-user"), {Name: "team", Source: &waypointpb.SpanAttribute_Literal{Literal: "shop"}}, header("x-taken"),
	}}, message.Fields{{Name: "x-user", Value: "ada"}, {Name: "x-user", Value: "bob"}, {Name: "x-taken", Value: "1"}})
	x.begun()
	x.req.Fields.Set("x-user", "from a token")
	x.req.Fields.Del("x-taken")
	x.req.Fields.Add("x-none", "from a token")
	x.routed()
	want := []trace.Extra{{Name: "the x-user", Value: "ada"}, {Name: "team", Value: "shop"}, {Name: "the x-taken", Value: "1"}}
	if x.span == nil || !reflect.DeepEqual(x.extra, want) {
		t.Errorf("%+v", x.extra)
	}
}

// Without telemetry it costs nothing that there is such a thing.
func TestNoTelemetryDoesNotAllocate(t *testing.T) {
	x := traced(t, nil, message.Fields{{Name: "x-user", Value: "ada"}})
	x.p.cfg.Tracer = nil
	if n := testing.AllocsPerRun(100, func() { x.begun(); x.routed() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
