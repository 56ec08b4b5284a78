package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/internal/extauthz"
	"github.com/ambit-mesh/ambit/waypoint/internal/ratelimit"
	"github.com/ambit-mesh/ambit/waypoint/internal/spans"
	"github.com/ambit-mesh/ambit/waypoint/internal/upstream"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// Caller calls services of the mesh on the waypoint's own behalf, over the same
// tunnels and with the same balancing as requests.
type Caller struct{ Proxy *Proxy }

var (
	_ ratelimit.Caller = Caller{}
	_ extauthz.Caller  = Caller{}
	_ extauthz.Asker   = Caller{}
	_ spans.Caller     = Caller{}
)

// maxAnswer bounds the answer of a service that helps the waypoint decide.
const maxAnswer = 1 << 20

func backendOf(ref *waypoint.BackendRef) *route.Backend {
	return &route.Backend{Service: ref.GetService(), Port: uint16(ref.GetPort()), Protocol: ref.GetProtocol(), Invalid: ref.GetInvalid()}
}

// Unary makes a unary gRPC call and gives the message of the answer.
func (c Caller) Unary(ctx context.Context, ref *waypoint.BackendRef, method string, request []byte, timeout time.Duration) ([]byte, error) {
	return c.UnaryWith(ctx, ref, method, nil, request, timeout)
}

// UnaryWith is Unary with metadata, in lower case.
func (c Caller) UnaryWith(ctx context.Context, ref *waypoint.BackendRef, method string, metadata message.Fields, request []byte, timeout time.Duration) ([]byte, error) {
	if ref.GetInvalid() != "" {
		return nil, errors.New(ref.GetInvalid())
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, timeoutError{timeoutCall, "the call", timeout})
		defer cancel()
	}
	framed := make([]byte, 5+len(request))
	binary.BigEndian.PutUint32(framed[1:], uint32(len(request)))
	copy(framed[5:], request)
	req := &message.Request{
		Method: "POST", Scheme: "http", Authority: ref.GetService(), Path: method, Version: message.HTTP2,
		Fields: message.Fields{{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"}},
		Body:   message.BytesBody(framed), ContentLength: int64(len(framed)),
	}
	req.Authority = authorityOf(ref)
	req.Fields = append(req.Fields, metadata...)
	var answer []byte
	err := c.Proxy.ask(ctx, backendOf(ref), new(upstream.Client), req, waypoint.Protocol_PROTOCOL_HTTP2, func(r *message.Response) (err error) {
		answer, err = unaryAnswer(r)
		return err
	})
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return answer, err
}

// authorityOf names a service in requests of our own.
func authorityOf(ref *waypoint.BackendRef) string {
	s := ref.GetService()
	for i := range len(s) {
		if s[i] == '/' {
			s = s[i+1:]
			break
		}
	}
	return s + ":" + strconv.Itoa(int(ref.GetPort()))
}

// callError is what a service has answered instead of a message.
type callError struct {
	code   codes.Code
	reason string
}

// Error says what was answered.
func (e *callError) Error() string { return e.reason }

// GRPCStatus is for package status.
func (e *callError) GRPCStatus() *status.Status { return status.New(e.code, e.reason) }

// codeOf is the code of an answer without one, as gRPC's http-grpc-status-mapping
// has it.
func codeOf(httpStatus int) codes.Code {
	switch httpStatus {
	case 400:
		return codes.Internal
	case 401:
		return codes.Unauthenticated
	case 403:
		return codes.PermissionDenied
	case 404:
		return codes.Unimplemented
	case 429, 502, 503, 504:
		return codes.Unavailable
	}
	return codes.Unknown
}

// unaryAnswer reads one length-prefixed message and the status.
func unaryAnswer(r *message.Response) ([]byte, error) {
	if r.Status != 200 {
		return nil, &callError{codeOf(r.Status), fmt.Sprintf("HTTP status %d", r.Status)}
	}
	var all []byte
	fields := r.Fields
	if r.Body != nil {
		var err error
		if all, err = readAll(r.Body, maxAnswer+5); err != nil {
			return nil, err
		}
		if t := r.Body.Trailers(); len(t) > 0 {
			fields = t
		}
	}
	code, err := strconv.ParseUint(fields.Get("grpc-status"), 10, 8)
	switch {
	case err != nil:
		return nil, errors.New("answer without grpc-status")
	case code != 0:
		return nil, &callError{codes.Code(code), fmt.Sprintf("%s: %s", route.Code(code), clip(fields.Get("grpc-message")))}
	case len(all) < 5 || all[0] != 0 || int(binary.BigEndian.Uint32(all[1:])) != len(all)-5:
		return nil, errors.New("answer is not one uncompressed message")
	}
	return all[5:], nil
}

var errTooLong = fmt.Errorf("answer of more than %d bytes", maxAnswer)

func readAll(b message.Body, limit int) ([]byte, error) {
	var out []byte
	for {
		if len(out) == cap(out) {
			out = append(out, 0)[:len(out)]
		}
		n, err := b.Read(out[len(out):cap(out)])
		out = out[:len(out)+n]
		switch {
		case len(out) > limit:
			return nil, errTooLong
		case err == io.EOF:
			return out, nil
		case err != nil:
			return nil, err
		}
	}
}

// RoundTrip sends a request and reads the whole answer.
func (c Caller) RoundTrip(ctx context.Context, ref *waypoint.BackendRef, req *message.Request) (*message.Response, error) {
	if ref.GetInvalid() != "" {
		return nil, errors.New(ref.GetInvalid())
	}
	proto := ref.GetProtocol()
	if proto != waypoint.Protocol_PROTOCOL_HTTP2 {
		proto = waypoint.Protocol_PROTOCOL_HTTP1
	}
	if req.Authority == "" {
		req.Authority = authorityOf(ref)
	}
	var answer *message.Response
	err := c.Proxy.ask(ctx, backendOf(ref), new(upstream.Client), req, proto, func(r *message.Response) error {
		answer = r
		if r.Body == nil {
			return nil
		}
		all, err := readAll(r.Body, maxAnswer)
		r.Body = message.BytesBody(all)
		return err
	})
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return answer, err
}
