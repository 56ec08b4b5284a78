package proxy

import (
	"encoding/binary"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ambit-mesh/ambit/internal/message"
)

func framed(b []byte) []byte {
	out := make([]byte, 5, 5+len(b))
	binary.BigEndian.PutUint32(out[1:], uint32(len(b)))
	return append(out, b...)
}

// trailing is a body with trailers.
type trailing struct {
	message.Body
	trailers message.Fields
}

func (b trailing) Trailers() message.Fields { return b.trailers }

func TestUnaryAnswer(t *testing.T) {
	ok := message.Fields{{Name: "grpc-status", Value: "0"}}
	for name, tc := range map[string]struct {
		resp message.Response
		want string // "" is an error
	}{
		"a message":        {message.Response{Status: 200, Body: trailing{message.BytesBody(framed([]byte("x"))), ok}}, "x"},
		"another status":   {message.Response{Status: 503}, ""},
		"no grpc-status":   {message.Response{Status: 200, Body: message.BytesBody(framed([]byte("x")))}, ""},
		"an error":         {message.Response{Status: 200, Fields: message.Fields{{Name: "grpc-status", Value: "14"}, {Name: "grpc-message", Value: "away"}}}, ""},
		"no message":       {message.Response{Status: 200, Fields: ok}, ""},
		"two messages":     {message.Response{Status: 200, Body: trailing{message.BytesBody(append(framed([]byte("x")), framed([]byte("y"))...)), ok}}, ""},
		"compressed":       {message.Response{Status: 200, Body: trailing{message.BytesBody(append([]byte{1}, framed([]byte("x"))[1:]...)), ok}}, ""},
		"a wrong length":   {message.Response{Status: 200, Body: trailing{message.BytesBody(framed([]byte("x"))[:5]), ok}}, ""},
		"more than it may": {message.Response{Status: 200, Body: trailing{message.BytesBody(make([]byte, maxAnswer+6)), ok}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := unaryAnswer(&tc.resp)
			if string(got) != tc.want || (err == nil) != (tc.want != "") {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// An answer instead of a message has the code that gRPC gives it.
func TestCodesOfAnswers(t *testing.T) {
	for want, resp := range map[codes.Code]*message.Response{
		codes.Unavailable:       {Status: 503},
		codes.Unauthenticated:   {Status: 401},
		codes.PermissionDenied:  {Status: 403},
		codes.Unimplemented:     {Status: 404},
		codes.Internal:          {Status: 400},
		codes.Unknown:           {Status: 302},
		codes.ResourceExhausted: {Status: 200, Fields: message.Fields{{Name: "grpc-status", Value: "8"}}},
	} {
		_, err := unaryAnswer(resp)
		if s, ok := status.FromError(fmt.Errorf("export: %w", err)); !ok || s.Code() != want {
			t.Errorf("%v: %v", want, err)
		}
	}
	_, err := unaryAnswer(&message.Response{Status: 200})
	if _, ok := status.FromError(err); ok {
		t.Errorf("an answer that cannot be read has a code: %v", err)
	}
}

func FuzzUnaryAnswer(f *testing.F) {
	f.Add(framed([]byte("x")), "0")
	f.Fuzz(func(t *testing.T, body []byte, status string) {
		got, err := unaryAnswer(&message.Response{Status: 200, Body: trailing{message.BytesBody(body), message.Fields{{Name: "grpc-status", Value: status}}}})
		if err == nil && len(got)+5 != len(body) {
			t.Errorf("%d bytes of an answer of %d", len(got), len(body))
		}
	})
}
