package extauthz

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"unicode/utf8"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authpb "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/internal/guard"
)

const method = "/envoy.service.auth.v3.Authorization/Check"

// Limits of what a service may answer.
const (
	maxAnswer = 1 << 20
	maxBody   = 64 << 10
)

var (
	errNoCaller  = errors.New("this waypoint calls no services")
	errUndecided = errors.New("the answer says neither yes nor no: it has neither a status nor a response")
)

func (c *Checker) askGRPC(ctx context.Context, s *Service, in *Input, body []byte, ignored func(guard.Fault)) Outcome {
	if c.caller == nil {
		return s.failed(errNoCaller)
	}
	request, err := proto.Marshal(checkRequest(s, in, body))
	if err != nil {
		return s.failed(fmt.Errorf("writing the request: %w", err))
	}
	raw, err := c.caller.Unary(ctx, s.Backend, method, request, s.timeout())
	if err != nil {
		return s.failed(err)
	}
	return s.parseGRPC(raw, ignored)
}

func checkRequest(s *Service, in *Input, body []byte) *authpb.CheckRequest {
	req := in.Request
	h := &authpb.AttributeContext_HttpRequest{
		Id: guard.UTF8(req.Fields.Get("x-request-id")), Method: guard.UTF8(req.Method), Scheme: guard.UTF8(req.Scheme),
		Host: guard.UTF8(req.Authority), Path: guard.UTF8(req.Path), Size: size(req), Protocol: req.Version.String(),
		Headers: headers(req.Fields, s.AllowedHeaders),
	}
	if utf8.Valid(body) {
		h.Body = string(body)
	} else {
		h.RawBody = body
	}
	return &authpb.CheckRequest{Attributes: &authpb.AttributeContext{
		Source: peer(&in.Source), Destination: peer(&in.Destination), ContextExtensions: in.Context,
		Request: &authpb.AttributeContext_Request{Time: timestamppb.New(in.Time), Http: h},
	}}
}

// size is that of the body, -1 if it is not known.
func size(req *message.Request) int64 {
	if req.Body == nil {
		return 0
	}
	return req.ContentLength
}

// headers gives the fields that a service is told; of several lines with one name
// the values are one list.
func headers(fields message.Fields, allowed []string) map[string]string {
	out := make(map[string]string, len(fields))
	for _, f := range fields {
		name := guard.UTF8(f.Name)
		if _, done := out[name]; done || len(allowed) > 0 && !slices.Contains(allowed, f.Name) {
			continue
		}
		value, _ := fields.Joined(f.Name)
		out[name] = guard.UTF8(value)
	}
	return out
}

// peer names the identity as a whole and, for services that decide by namespace,
// in parts.
func peer(p *Peer) *authpb.AttributeContext_Peer {
	out := &authpb.AttributeContext_Peer{Principal: p.ID.String(), Service: p.Service, Address: address(p.Address)}
	if !p.ID.IsZero() {
		out.Labels = map[string]string{"namespace": p.ID.Namespace, "service_account": p.ID.ServiceAccount}
	}
	return out
}

func address(a netip.AddrPort) *corepb.Address {
	if !a.IsValid() {
		return nil
	}
	return &corepb.Address{Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
		Protocol: corepb.SocketAddress_TCP, Address: a.Addr().Unmap().String(),
		PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: uint32(a.Port())},
	}}}
}

// parseGRPC reads an answer. Only an answer that says yes and nothing else lets a
// request pass.
func (s *Service) parseGRPC(raw []byte, ignored func(guard.Fault)) Outcome {
	if len(raw) > maxAnswer {
		return s.failed(fmt.Errorf("the answer has %d bytes, more than %d", len(raw), maxAnswer))
	}
	pb := &authpb.CheckResponse{}
	if err := proto.Unmarshal(raw, pb); err != nil {
		return s.failed(fmt.Errorf("reading the answer: %w", err))
	}
	refused := pb.GetStatus() != nil && pb.GetStatus().GetCode() != int32(codes.OK)
	switch r := pb.GetHttpResponse().(type) {
	case *authpb.CheckResponse_ErrorResponse:
		out := s.failed(fmt.Errorf("it has failed itself (status %d)", pb.GetStatus().GetCode()))
		if out.Decision == Failed {
			out.answer(r.ErrorResponse, http.StatusServiceUnavailable, ignored)
		}
		return out
	case *authpb.CheckResponse_DeniedResponse:
		return s.denied(r.DeniedResponse, pb.GetStatus().GetCode(), ignored)
	case *authpb.CheckResponse_OkResponse:
		if !refused {
			return allowed(r.OkResponse, ignored)
		}
	case nil:
		if pb.GetStatus() == nil {
			return s.failed(errUndecided)
		}
		if !refused {
			return Outcome{Decision: Allowed}
		}
	}
	return s.denied(nil, pb.GetStatus().GetCode(), ignored)
}

func (s *Service) denied(r *authpb.DeniedHttpResponse, code int32, ignored func(guard.Fault)) Outcome {
	out := Outcome{Decision: Denied}
	out.answer(r, http.StatusForbidden, ignored)
	out.Reason = s.reason("denied with %d (gRPC status %d)", out.Status, code)
	return out
}

// answer takes over what the service wants the client to be told.
func (o *Outcome) answer(r *authpb.DeniedHttpResponse, byDefault int, ignored func(guard.Fault)) {
	o.Status = int(r.GetStatus().GetCode())
	if o.Status < 200 || o.Status > 599 {
		o.Status = byDefault
	}
	apply(edits(r.GetHeaders(), ignored), &o.Fields)
	switch {
	case o.Status == http.StatusNoContent || o.Status == http.StatusNotModified:
	case len(r.GetBody()) > maxBody:
		ignored(guard.TooLarge)
	default:
		o.Body = []byte(r.GetBody())
	}
}

func allowed(r *authpb.OkHttpResponse, ignored func(guard.Fault)) Outcome {
	out := Outcome{Decision: Allowed}
	out.request = append(edits(r.GetHeaders(), ignored), removals(r.GetHeadersToRemove(), ignored)...)
	out.respond = edits(r.GetResponseHeadersToAdd(), ignored)
	out.query.remove = r.GetQueryParametersToRemove()
	for _, p := range r.GetQueryParametersToSet() {
		out.query.set = append(out.query.set, [2]string{p.GetKey(), p.GetValue()})
	}
	return out
}
