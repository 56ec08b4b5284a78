package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/internal/authz"
	"github.com/ambit-mesh/ambit/internal/flow"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/wds"
)

func sample(d Direction) *connection {
	return &connection{
		direction: d, start: time.Now(), tunnel: true, established: true,
		srcAddr: netip.MustParseAddrPort("10.0.0.1:40000"), dstAddr: netip.MustParseAddrPort("10.96.0.9:80"),
		target: netip.MustParseAddrPort("10.0.0.2:8080"), traceparent: trace.Begin().Traceparent(),
		src:   &wds.Workload{Name: "web-1", Owner: "web", Namespace: "shop"},
		dst:   &wds.Workload{Name: "cart-1", Owner: "cart", Namespace: "shop"},
		srcID: identity.ID{TrustDomain: "td", Namespace: "shop", ServiceAccount: "web"}, dstID: identity.ID{TrustDomain: "td", Namespace: "shop", ServiceAccount: "cart"},
		service: &wds.Service{Name: "cart", Namespace: "shop", Hostname: "cart.shop"},
	}
}

// Both ends of a tunnelled connection can be told to be one.
func TestRecordsOfOneConnection(t *testing.T) {
	out, in := sample(Outbound), sample(Inbound)
	in.traceparent, in.dstAddr, in.service = out.traceparent, out.target, nil
	out.toDst.Store(7)
	var o, i, w flow.Record
	out.record(&o, nil)
	in.record(&i, nil)
	if o.TunnelOut.TraceID.IsZero() || o.TunnelOut.TraceID != i.TunnelIn.TraceID || o.TunnelOut.SpanID != i.TunnelIn.SpanID {
		t.Errorf("%v, %v", o.TunnelOut, i.TunnelIn)
	}
	if o.Destination.Address != i.Destination.Address || o.ServicePort != 80 || o.Sent != 7 || !o.Encrypted {
		t.Errorf("%+v\n%+v", o, i)
	}
	if o.Reporter != flowpb.Reporter_REPORTER_SOURCE || i.Reporter != flowpb.Reporter_REPORTER_DESTINATION || o.Waypoint != "" {
		t.Errorf("%v, %v, %q", o.Reporter, i.Reporter, o.Waypoint)
	}
	out.waypoint = true
	if out.record(&w, nil); w.Waypoint != "shop/cart" {
		t.Errorf("waypoint %q", w.Waypoint)
	}
}

func TestVerdicts(t *testing.T) {
	none := &authz.Decision{Rule: authz.NoRule, Reason: "nothing allows it"}
	rule := &authz.Decision{Policy: authz.Key{Namespace: "shop", Name: "deny-all"}, Rule: 2}
	for name, tc := range map[string]struct {
		err     error
		verdict flowpb.Verdict
		flags   string
		policy  flow.Policy
	}{
		"forwarded":     {nil, flowpb.Verdict_VERDICT_FORWARDED, "", flow.Policy{}},
		"no rule":       {refuse(statusDenied, "http_request_denied", "%w", deniedBy(none)), flowpb.Verdict_VERDICT_DENIED, "DENY", flow.Policy{Rule: "no rule allowed it"}},
		"a rule":        {deniedBy(rule), flowpb.Verdict_VERDICT_DENIED, "DENY", flow.Policy{Namespace: "shop", Name: "deny-all", Rule: "2"}},
		"changed":       {fmt.Errorf("closed because the policy changed: %w", deniedBy(rule)), flowpb.Verdict_VERDICT_DENIED, "DENY", flow.Policy{Namespace: "shop", Name: "deny-all", Rule: "2"}},
		"by the peer":   {&hbone.RefusedError{Status: 401}, flowpb.Verdict_VERDICT_DENIED, "DENY", flow.Policy{}},
		"unreachable":   {errors.New("no route"), flowpb.Verdict_VERDICT_FAILED, "CONNECT", flow.Policy{}},
		"not available": {&hbone.RefusedError{Status: 503}, flowpb.Verdict_VERDICT_FAILED, "CONNECT", flow.Policy{}},
	} {
		t.Run(name, func(t *testing.T) {
			var r flow.Record
			sample(Inbound).record(&r, tc.err)
			if r.Verdict != tc.verdict || r.Flags != tc.flags || r.Policy != tc.policy || (r.Reason == "") != (tc.err == nil) {
				t.Errorf("%v %q %+v %q", r.Verdict, r.Flags, r.Policy, r.Reason)
			}
		})
	}
}

// What the books of a connection cost beside each other.
func BenchmarkBooks(b *testing.B) {
	c := sample(Outbound)
	b.Run("flow record", func(b *testing.B) {
		log := flow.NewLog(0)
		b.ReportAllocs()
		for b.Loop() {
			var r flow.Record
			c.record(&r, nil)
			log.Append(&r)
		}
	})
	b.Run("access log", func(b *testing.B) {
		log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(io.Discard), zapcore.InfoLevel))
		b.ReportAllocs()
		for b.Loop() {
			c.log(log, nil)
		}
	})
	b.Run("metric labels", func(b *testing.B) {
		m := NewMetrics(prometheus.NewRegistry())
		b.ReportAllocs()
		for b.Loop() {
			m.of(c.labels(flagNone))
		}
	})
}
