package proxy

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/internal/flow"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/internal/wds"
	"github.com/ambit-mesh/ambit/waypoint/internal/upstream"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// Response flags, as request metrics and logs have them.
const (
	flagDenied      = "DENY" // by a policy
	flagNoRoute     = "NR"
	flagNoEndpoint  = "UH"
	flagConnect     = "UF"
	flagReset       = "UC"
	flagRefused     = "UR" // by the endpoint, before it was processed
	flagTimeout     = "UT"
	flagOverflow    = "UO"
	flagRateLimited = "RL"
	flagFault       = "FI"
	flagDelay       = "DI"
	flagExternal    = "UAEX"
	flagToken       = "JWT"
	flagMalformed   = "DPE"
	flagClientGone  = "DC"
	flagInvalid     = "NC" // configuration that cannot be carried out
	flagProtocol    = "UPE"
	flagProhibited  = "PROHIBITED" // the address that a name has come to
)

// failure is a request that the waypoint answers itself because it cannot or must
// not be forwarded.
type failure struct {
	status int
	// code for gRPC clients; that of the status if grpc is not set.
	code route.Code
	grpc bool
	flag string
	// kind is the error type of Proxy-Status, RFC 9209 section 2.3.
	kind    string
	reason  string
	verdict flowpb.Verdict
	policy  flow.Policy
	fields  message.Fields
	body    []byte
}

// Error gives the reason.
func (f *failure) Error() string { return f.reason }

func failed(status int, flag, kind, format string, args ...any) *failure {
	return &failure{status: status, flag: flag, kind: kind, verdict: flowpb.Verdict_VERDICT_FAILED, reason: fmt.Sprintf(format, args...)}
}

// failureOf says what clients are told of an error on the way to a backend.
func failureOf(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	if status, said, ok := upstream.Refused(err); ok && status == 401 {
		f := failed(403, flagDenied, "http_request_denied", "refused by the destination: %s", said)
		f.verdict = flowpb.Verdict_VERDICT_DENIED
		return f
	}
	var connect *upstream.ConnectError
	var exchange *message.ExchangeError
	switch {
	case errors.Is(err, wds.ErrNoEndpoint), errors.Is(err, wds.ErrNoPort):
		return failed(503, flagNoEndpoint, "destination_unavailable", "%s", err)
	case errors.Is(err, upstream.ErrOverloaded):
		f := failed(503, flagOverflow, "connection_limit_reached", "%s", err)
		f.verdict = flowpb.Verdict_VERDICT_LIMITED
		return f
	case errors.Is(err, upstream.ErrProhibited):
		f := failed(502, flagProhibited, "destination_ip_prohibited", "%s", err)
		f.verdict = flowpb.Verdict_VERDICT_DENIED
		return f
	case errors.As(err, &connect):
		kind := "destination_unavailable"
		if errors.Is(err, context.DeadlineExceeded) {
			kind = "connection_timeout"
		}
		return failed(503, flagConnect, kind, "%s", err)
	case errors.Is(err, errTimeout), errors.Is(err, context.DeadlineExceeded):
		return failed(504, flagTimeout, "http_response_timeout", "%s", err)
	case errors.Is(err, message.ErrProtocol):
		return failed(502, flagProtocol, "http_protocol_error", "%s", err)
	case errors.As(err, &exchange) && exchange.Stage == message.Unprocessed:
		return failed(503, flagRefused, "connection_terminated", "%s", err)
	}
	return failed(503, flagReset, "connection_terminated", "%s", err)
}

// reply answers a request that has failed.
func (x *exchange) reply(f *failure) {
	r := &x.record
	r.Flags, r.Reason = joinFlags(r.Flags, f.flag), f.reason
	r.Verdict = f.verdict
	if f.policy != (flow.Policy{}) {
		r.Policy = f.policy
	}
	if x.responded {
		x.w.Break(f)
		return
	}
	fields := append(message.Fields{{Name: "proxy-status", Value: hbone.ProxyStatus(f.kind, f.reason)}}, f.fields...)
	x.marks(&fields)
	if r.HTTP.GRPC {
		x.replyGRPC(f, fields)
		return
	}
	body := f.body
	if body == nil {
		body = []byte("ambit: " + f.reason + "\n")
		fields.Add("content-type", "text/plain; charset=utf-8")
	}
	x.send(&message.Response{Status: f.status, Fields: fields, ContentLength: int64(len(body))}, body)
}

// replyGRPC answers with trailers only (gRPC over HTTP/2, "Responses").
func (x *exchange) replyGRPC(f *failure, fields message.Fields) {
	code := f.code
	if !f.grpc {
		code = route.CodeOfStatus(f.status)
	}
	x.record.HTTP.GRPCStatus = int(code)
	fields.Add("content-type", "application/grpc")
	fields.Add("grpc-status", strconv.Itoa(int(code)))
	fields.Add("grpc-message", route.EncodeMessage(f.reason))
	x.send(&message.Response{Status: 200, Fields: fields, ContentLength: -1}, nil)
}

// send answers with what is all there.
func (x *exchange) send(resp *message.Response, body []byte) {
	x.record.HTTP.Status = resp.Status
	x.responded = true
	if err := x.w.Respond(resp); err != nil {
		return
	}
	if len(body) > 0 && x.req.Method != "HEAD" {
		n, err := x.w.Write(body)
		x.record.HTTP.ResponseBytes += int64(n)
		if err != nil {
			return
		}
	}
	_ = x.w.End(nil)
}

func joinFlags(a, b string) string {
	if a == "" || a == b {
		return b
	}
	if b == "" || strings.Contains(a, b) {
		return a
	}
	return a + "," + b
}
