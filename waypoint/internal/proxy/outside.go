package proxy

import (
	"context"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/waypoint/internal/extauthz"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// askOutside asks the external authorization services of the rule.
func (x *exchange) askOutside(ctx context.Context, filters []route.Filter) error {
	for i := range filters {
		e := filters[i].ExternalAuthorization
		if e == nil {
			continue
		}
		if err := x.askOne(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

func (x *exchange) askOne(ctx context.Context, e *route.ExternalAuthorization) error {
	name := x.decision.Rule.ID()
	if e.Policy != "" {
		name = "ExternalAuthorizationPolicy " + e.Policy
	}
	if e.Backend.Invalid != "" && !e.FailOpen {
		return failed(500, flagInvalid, "proxy_configuration_error", "%s: external authorization: %s", name, e.Backend.Invalid)
	}
	out := x.p.cfg.External.Check(ctx, &extauthz.Service{
		Name: name, Backend: backendRef(&e.Backend), GRPC: e.GRPC, Path: e.Path, AllowedHeaders: e.AllowedHeaders,
		AllowedResponseHeaders: e.AllowedResponseHeaders, MaxBodyBytes: e.MaxBodyBytes, Timeout: e.Timeout.Or(0), FailOpen: e.FailOpen,
	}, extauthz.Input{
		Request: x.req, Time: x.start,
		Source:      extauthz.Peer{ID: x.d.client.ID, Address: x.d.client.Address},
		Destination: extauthz.Peer{Address: x.d.asked, Service: x.d.key},
	})
	if out.Allowed {
		out.ApplyRequest(x.req)
		x.marking = append(x.marking, out.ApplyResponse)
		return nil
	}
	f := failed(out.Status, flagExternal, "http_request_denied", "%s: %s", name, out.Reason)
	if e.Policy != "" {
		f.policy = policyNamed("ExternalAuthorizationPolicy", e.Policy)
	}
	f.verdict, f.fields, f.body = flowpb.Verdict_VERDICT_DENIED, out.Fields, out.Body
	if f.body == nil {
		f.body = []byte{}
	}
	return f
}
