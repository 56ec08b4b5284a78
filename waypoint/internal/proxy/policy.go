package proxy

import (
	"context"
	"strconv"
	"strings"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/internal/authz"
	"github.com/ambit-mesh/ambit/internal/flow"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// authenticate verifies the request's token, if the service has token providers.
func (x *exchange) authenticate(ctx context.Context) error {
	if x.entry.Tokens == nil {
		return nil
	}
	r := x.entry.Tokens.Check(ctx, x.req)
	if r.Allowed {
		x.claims = r.Claims
		return nil
	}
	f := failed(r.Status, flagToken, "http_request_denied", "%s", r.Reason)
	f.verdict, f.fields = flowpb.Verdict_VERDICT_DENIED, r.Fields
	f.policy = policyNamed("JWTAuthentication", r.Policy)
	return f
}

// authorize asks the policies of the service about the request.
func (x *exchange) authorize() error {
	d := x.decide()
	x.record.Audits = audits(d.Audits)
	if d.Allowed {
		return nil
	}
	return denied(&d)
}

// denied is what a client is told of a denial.
func denied(d *authz.Decision) *failure {
	f := failed(403, flagDenied, "http_request_denied", "%s", d.Reason)
	f.verdict = flowpb.Verdict_VERDICT_DENIED
	f.policy = policyOf(d)
	f.code, f.grpc = route.PermissionDenied, true
	return f
}

// decide asks the policies of now about the request. Where no policy wants to see
// requests the destination's node decides alone, which knows the policies of its
// workloads, too. A host outside has none.
func (x *exchange) decide() authz.Decision {
	e := x.p.cfg.Frontends.Key(x.d.key)
	if e == nil {
		e = x.entry
	}
	if !e.Config.GetExternal() && len(e.Config.GetAuthorizationPolicies()) == 0 {
		return authz.Decision{Allowed: true, Rule: authz.NoRule}
	}
	r := authz.Request{Method: x.req.Method, Path: x.record.HTTP.Path, Host: x.req.Authority, Header: x.header, Claim: x.claim}
	if x.record.HTTP.GRPC {
		r.GRPCService, r.GRPCMethod, _ = strings.Cut(strings.TrimPrefix(r.Path, "/"), "/")
	}
	return x.d.evaluator(e.Config.GetNamespace(), e.Config.GetAuthorizationPolicies()).DecideRequest(x.d.facts(), &r)
}

func (d *downstream) evaluator(namespace string, listed []string) *authz.Evaluator {
	return d.proxy.cfg.Store.EvaluatorOf(namespace, listed)
}

// facts are what is known of the client's connection, in the terms in which the
// destination's node knows it: policies name the port that workloads listen on.
func (d *downstream) facts() authz.Connection {
	to := d.asked.Addr()
	if !to.IsValid() {
		to = d.local.Addr()
	}
	target := d.proxy.cfg.Store.TargetPort
	if d.udp {
		target = d.proxy.cfg.Store.TargetPortUDP
	}
	return authz.Connection{
		Source: d.client.ID, Peer: d.client.ID, SourceIP: d.client.Address.Addr(),
		DestIP: to, DestPort: target(d.key, d.port),
	}
}

func policyOf(d *authz.Decision) flow.Policy {
	return flow.Policy{Namespace: d.Policy.Namespace, Name: d.Policy.Name, Rule: ruleName(d.Rule, d.RuleName)}
}

func audits(list []authz.AuditMatch) []flow.Policy {
	if len(list) == 0 {
		return nil
	}
	out := make([]flow.Policy, len(list))
	for i, a := range list {
		out[i] = flow.Policy{Namespace: a.Policy.Namespace, Name: a.Policy.Name, Rule: ruleName(a.Rule, a.RuleName)}
	}
	return out
}

// header gives the lines of a header.
func (x *exchange) header(name string) []string {
	if name == "host" {
		return []string{x.req.Authority}
	}
	var out []string
	for _, f := range x.req.Fields {
		if f.Name == name {
			out = append(out, f.Value)
		}
	}
	return out
}

// claim gives a claim of the verified token.
func (x *exchange) claim(issuer, name string) []string {
	if x.claims == nil || x.claims.Issuer() != issuer {
		return nil
	}
	return x.claims.Values(name)
}

// ruleName is a rule's name, or else its position; "" for none.
func ruleName(rule int, name string) string {
	if name == "" && rule != authz.NoRule {
		return strconv.Itoa(rule)
	}
	return name
}
