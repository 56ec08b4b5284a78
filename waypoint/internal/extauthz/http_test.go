package extauthz

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
)

// asker answers as it is told and keeps the question.
type asker struct {
	answer *message.Response
	err    error
	asked  *message.Request
	body   string
}

func (a *asker) RoundTrip(ctx context.Context, _ *waypoint.BackendRef, req *message.Request) (*message.Response, error) {
	a.asked = req
	if req.Body != nil {
		b, _ := io.ReadAll(req.Body)
		a.body = string(b)
	}
	if a.answer == nil && a.err == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return a.answer, a.err
}

func httpService() *Service {
	return &Service{Name: "HTTPRoute/shop/cart/0", Backend: &waypoint.BackendRef{Service: backendName, Port: 80}}
}

func answer(status int, body string, fields ...message.Field) *message.Response {
	r := &message.Response{Status: status, Fields: fields, Version: message.HTTP11}
	if body != "" {
		r.Body = message.BytesBody([]byte(body))
	}
	return r
}

// The service is asked with the client's method, host and path, and with nothing
// else of it but what is allowed.
func TestQuestion(t *testing.T) {
	for _, c := range []struct {
		name    string
		service func(*Service)
		change  func(*message.Request)
		want    message.Request
		body    string
	}{
		{
			"as it is", func(*Service) {}, func(*message.Request) {},
			message.Request{Method: "POST", Path: "/buy?item=1", Fields: message.Fields{{Name: "authorization", Value: "Bearer x"}}},
			"",
		},
		{
			"prefix, headers, body", func(s *Service) {
				s.Path, s.AllowedHeaders, s.MaxBodyBytes = "/auth/", []string{"x-user", "content-length", "connection"}, 10
			},
			func(r *message.Request) {
				r.Fields.Add("x-user", "second")
				r.Fields.Add("content-length", "99")
				r.Fields.Add("connection", "x-user")
			},
			message.Request{Method: "POST", Path: "/auth/buy?item=1", ContentLength: 5, Fields: message.Fields{
				{Name: "authorization", Value: "Bearer x"}, {Name: "x-user", Value: "mallory"}, {Name: "x-user", Value: "second"},
			}},
			"hello",
		},
		{
			"upgrade", func(s *Service) { s.Path, s.MaxBodyBytes = "auth", 10 }, func(r *message.Request) { r.Method, r.Protocol = "CONNECT", "websocket" },
			message.Request{Method: "GET", Path: "/auth/buy?item=1", Fields: message.Fields{{Name: "authorization", Value: "Bearer x"}}},
			"",
		},
		{
			"options *", func(s *Service) { s.Path = "/auth" }, func(r *message.Request) { r.Method, r.Path = "OPTIONS", "*" },
			message.Request{Method: "OPTIONS", Path: "/auth/*", Fields: message.Fields{{Name: "authorization", Value: "Bearer x"}}},
			"",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &asker{answer: answer(200, "")}
			svc, req := httpService(), request("hello")
			c.service(svc)
			c.change(req)
			if out := New(Config{Asker: a}).Check(t.Context(), svc, input(req)); !out.Allowed {
				t.Fatalf("%+v", out)
			}
			got := *a.asked
			got.Body = nil
			c.want.Scheme, c.want.Authority, c.want.Version = "http", "cart.shop:8080", message.HTTP11
			if diff := cmp.Diff(c.want, got); diff != "" || a.body != c.body {
				t.Errorf("%s\nbody %q", diff, a.body)
			}
		})
	}
	t.Run("connect", func(t *testing.T) {
		req := request("")
		req.Method, req.Path = "CONNECT", ""
		if out := New(Config{Asker: &asker{answer: answer(200, "")}}).Check(t.Context(), httpService(), input(req)); out.Allowed || out.Status != 503 {
			t.Errorf("%+v", out)
		}
	})
}

// 200 and only 200 lets a request pass; the rest is the client's answer.
func TestHTTPAnswers(t *testing.T) {
	for _, c := range []struct {
		status       int
		closed, open Decision
		want         int
	}{
		{200, Allowed, Allowed, 0},
		{201, Denied, Denied, 403},
		{204, Denied, Denied, 403},
		{302, Denied, Denied, 302},
		{401, Denied, Denied, 401},
		{403, Denied, Denied, 403},
		{429, Denied, Denied, 429},
		{500, Failed, FailedOpen, 500},
		{503, Failed, FailedOpen, 503},
		{0, Failed, FailedOpen, 503},
		{101, Failed, FailedOpen, 503},
		{999, Failed, FailedOpen, 503},
	} {
		svc := httpService()
		ck := New(Config{Asker: &asker{answer: answer(c.status, "")}})
		if out := ck.Check(t.Context(), svc, input(request(""))); out.Decision != c.closed || out.Status != c.want || out.Allowed != (c.closed == Allowed) {
			t.Errorf("%d closed: %+v", c.status, out)
		}
		svc.FailOpen = true
		if out := ck.Check(t.Context(), svc, input(request(""))); out.Decision != c.open || out.Allowed == (c.open == Denied) {
			t.Errorf("%d open: %+v", c.status, out)
		}
	}
}

func TestHTTPDenied(t *testing.T) {
	fields := message.Fields{
		{Name: "www-authenticate", Value: "Basic"},
		{Name: "set-cookie", Value: "a=1"},
		{Name: "set-cookie", Value: "b=2"},
		{Name: "content-type", Value: "text/plain"},
		{Name: "connection", Value: "close"},
		{Name: "x-bad", Value: "a\nb"},
	}
	out := New(Config{Asker: &asker{answer: answer(401, "who are you?", fields...)}}).Check(t.Context(), httpService(), input(request("")))
	if diff := cmp.Diff(fields[:4], out.Fields); diff != "" || out.Allowed || string(out.Body) != "who are you?" {
		t.Errorf("%+v\n%s", out, diff)
	}
	// A body that does not fit is left out, and what describes it.
	out = New(Config{Asker: &asker{answer: answer(401, strings.Repeat("x", maxBody+1), fields...)}}).Check(t.Context(), httpService(), input(request("")))
	if out.Body != nil || out.Fields.Has("content-type") || out.Status != 401 {
		t.Errorf("%+v", out)
	}
}

// What the service says of the client goes on, and what the client says of itself
// under these names does not.
func TestHTTPAllowedFields(t *testing.T) {
	fields := message.Fields{
		{Name: "x-user", Value: "alice"},
		{Name: "x-group", Value: "a"},
		{Name: "x-group", Value: "b"},
		{Name: "content-type", Value: "text/html"},
		{Name: "host", Value: "evil"},
		{Name: "transfer-encoding", Value: "chunked"},
		{Name: "x-bad", Value: "a\r\nb"},
		{Name: "date", Value: "now"},
	}
	client := message.Fields{{Name: "x-tenant", Value: "forged"}, {Name: "content-type", Value: "application/json"}}
	for _, c := range []struct {
		name    string
		allowed []string
		status  int
		want    message.Fields
	}{
		{
			"all", nil, 200,
			message.Fields{
				{Name: "authorization", Value: "Bearer x"},
				{Name: "cookie", Value: "a=b"},
				{Name: "x-user", Value: "alice"},
				client[0], client[1],
				{Name: "x-group", Value: "a"},
				{Name: "x-group", Value: "b"},
			},
		},
		{
			"named",
			[]string{"x-user", "x-tenant", "authorization", "host", "transfer-encoding"},
			200,
			message.Fields{{Name: "authorization", Value: "Bearer x"}, {Name: "cookie", Value: "a=b"}, client[1], {Name: "x-user", Value: "alice"}},
		},
		{
			"not asked, and open",
			[]string{"x-user", "x-tenant"},
			500,
			message.Fields{{Name: "authorization", Value: "Bearer x"}, {Name: "cookie", Value: "a=b"}, client[1]},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			svc := httpService()
			svc.AllowedResponseHeaders, svc.FailOpen = c.allowed, true
			req := request("", client...)
			out := New(Config{Asker: &asker{answer: answer(c.status, "", fields...)}}).Check(t.Context(), svc, input(req))
			if !out.Allowed {
				t.Fatalf("%+v", out)
			}
			out.ApplyRequest(req)
			if diff := cmp.Diff(c.want, req.Fields); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestHTTPAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, a := range map[string]Asker{"error": &asker{err: errors.New("no endpoints")}, "late": &asker{}, "none": nil} {
			svc := httpService()
			began := time.Now()
			if out := New(Config{Asker: a}).Check(t.Context(), svc, input(request(""))); out.Allowed || out.Status != 503 || out.Reason == "" {
				t.Errorf("%s: %+v", name, out)
			}
			if took := time.Since(began); name == "late" && took != DefaultTimeout {
				t.Errorf("waited %v", took)
			}
			svc.FailOpen = true
			if out := New(Config{Asker: a}).Check(t.Context(), svc, input(request(""))); !out.Allowed {
				t.Errorf("%s, open: %+v", name, out)
			}
		}
	})
}

// A refusal whose body does not end is a refusal without a body, in time.
func TestHTTPSlowAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		body := newStream(r)
		go func() {
			<-body.closed
			w.CloseWithError(errors.New("closed"))
		}()
		a := &asker{answer: &message.Response{Status: 403, Body: body, ContentLength: -1}}
		began := time.Now()
		out := New(Config{Asker: a}).Check(t.Context(), httpService(), input(request("")))
		if out.Allowed || out.Status != 403 || out.Body != nil || time.Since(began) != DefaultTimeout {
			t.Errorf("after %v: %+v", time.Since(began), out)
		}
	})
}

func TestFromProto(t *testing.T) {
	b := &waypoint.BackendRef{Service: backendName}
	g := FromProto("r", &waypoint.ExternalAuthorization{Backend: b, MaxBodyBytes: 5, FailOpen: true, Protocol: &waypoint.ExternalAuthorization_Grpc{Grpc: &waypoint.ExternalGRPC{AllowedHeaders: []string{"X-A"}}}})
	if !g.GRPC || g.MaxBodyBytes != 5 || !g.FailOpen || g.timeout() != DefaultTimeout || g.AllowedHeaders[0] != "x-a" {
		t.Errorf("%+v", g)
	}
	h := FromProto("r", &waypoint.ExternalAuthorization{Backend: b, Protocol: &waypoint.ExternalAuthorization_Http{Http: &waypoint.ExternalHTTP{Path: "/p", AllowedResponseHeaders: []string{"X-B"}}}})
	if h.GRPC || h.Path != "/p" || h.AllowedResponseHeaders[0] != "x-b" || h.Backend.GetInvalid() != "" {
		t.Errorf("%+v", h)
	}
}
