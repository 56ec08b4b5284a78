package flow

import (
	"encoding/hex"
	"net/netip"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/internal/trace"
)

// Proto gives the record as observers read it. Node is the reporter's.
func (r *Record) Proto(node string) *flowpb.FlowRecord {
	p := &flowpb.FlowRecord{
		Event: flowpb.FlowRecord_EVENT_ENDED, Start: timestamppb.New(r.Start), Duration: durationpb.New(r.Duration),
		Reporter: r.Reporter, Node: node, TunnelIn: tunnel(r.TunnelIn), TunnelOut: tunnel(r.TunnelOut),
		Source: r.Source.proto(), Destination: r.Destination.proto(),
		Waypoint: r.Waypoint, Security: &flowpb.Security{MutualTls: r.Encrypted}, Protocol: r.Protocol,
		Verdict: r.Verdict, Policy: r.Policy.proto(), Reason: text(r.Reason), ResponseFlags: r.Flags,
		BytesSent: uint64(r.Sent), BytesReceived: uint64(r.Received),
	}
	if r.Opened {
		p.Event = flowpb.FlowRecord_EVENT_OPENED
	}
	if !r.Trace.IsZero() {
		p.TraceId = r.Trace.String()
	}
	if s := r.Service; s != nil {
		p.Service = &flowpb.Service{Name: s.Name, Namespace: s.Namespace, Hostname: s.Hostname, Port: uint32(r.ServicePort)}
	}
	for _, a := range r.Audits {
		p.Audits = append(p.Audits, a.proto())
	}
	if r.HTTP.Method != "" {
		p.Http = r.HTTP.proto()
	}
	return p
}

// tunnel names a tunnel stream.
func tunnel(c trace.Context) string {
	if !c.Valid() {
		return ""
	}
	return hex.EncodeToString(append(c.TraceID[:], c.SpanID[:]...))
}

func (e *End) proto() *flowpb.Endpoint {
	p := &flowpb.Endpoint{Identity: e.Identity.String(), Port: uint32(e.Address.Port()), Namespace: e.Identity.Namespace, ServiceAccount: e.Identity.ServiceAccount}
	if a := e.Address.Addr(); a.IsValid() {
		p.Address = a.Unmap().AsSlice()
	}
	if w := e.Workload; w != nil {
		p.Workload, p.Owner, p.Namespace, p.ServiceAccount = w.Name, w.Owner, w.Namespace, w.ServiceAccount
		p.CanonicalService, p.Version, p.Node, p.Zone, p.Cluster = w.CanonicalName, w.CanonicalRevision, w.Node, w.Zone, w.Cluster
	}
	return p
}

// Address gives the address of an endpoint; invalid when it has none.
func Address(e *flowpb.Endpoint) netip.AddrPort {
	a, ok := netip.AddrFromSlice(e.GetAddress())
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, uint16(e.GetPort()))
}

func (p *Policy) proto() *flowpb.PolicyRef {
	if *p == (Policy{}) {
		return nil
	}
	return &flowpb.PolicyRef{Kind: p.Kind, Namespace: p.Namespace, Name: p.Name, Rule: p.Rule}
}

func (h *HTTP) proto() *flowpb.HTTP {
	return &flowpb.HTTP{
		Version: h.Version, Method: text(h.Method), Path: text(h.Path), Host: text(h.Host), UserAgent: text(h.UserAgent),
		Status: uint32(h.Status), Grpc: h.GRPC, GrpcStatus: uint32(h.GRPCStatus),
		RequestBytes: uint64(h.RequestBytes), ResponseBytes: uint64(h.ResponseBytes),
		Route: h.Route, Rule: h.Rule, Backend: h.Backend, Attempts: uint32(h.Attempts), Mirrors: h.Mirrors,
		Fault: h.Fault.proto(), RateLimit: h.RateLimit.proto(), Upgrade: text(h.Upgrade),
	}
}

// text makes a string of a peer's fit for protobuf, which has UTF-8 only.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
