package extauthz

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/internal/guard"
)

func (c *Checker) askHTTP(ctx context.Context, s *Service, in *Input, body []byte, ignored func(guard.Fault)) Outcome {
	if c.asker == nil {
		return s.failed(errNoCaller)
	}
	question, err := s.question(in.Request, body)
	if err != nil {
		return s.failed(err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	resp, err := c.asker.RoundTrip(ctx, s.Backend, question)
	if err != nil {
		return s.failed(err)
	}
	if resp.Body != nil {
		defer resp.Body.Close()
		// The body is waited for no longer than the head.
		defer context.AfterFunc(ctx, func() { resp.Body.Close() })()
	}
	return s.readHTTP(resp, question.Method, ignored)
}

// question is the request that the service gets: the client's method, path and
// Host, its Authorization and what is allowed beside (Gateway API, HTTPAuthConfig).
func (s *Service) question(req *message.Request, body []byte) (*message.Request, error) {
	q := &message.Request{
		Method: req.Method, Scheme: "http", Authority: req.Authority, Path: join(s.Path, req.Path), Version: message.HTTP11,
	}
	if req.Method == http.MethodConnect {
		if req.Path == "" {
			return nil, fmt.Errorf("a CONNECT request has no path to ask for; use gRPC to authorize tunnels")
		}
		// RFC 8441: what HTTP/1.1 says with GET and Upgrade.
		q.Method = http.MethodGet
	}
	for _, f := range req.Fields {
		if f.Name == "authorization" || slices.Contains(s.AllowedHeaders, f.Name) {
			if _, fault := guard.Name(f.Name); fault == guard.Fine {
				q.Fields = append(q.Fields, f)
			}
		}
	}
	if len(body) > 0 {
		q.Body, q.ContentLength = message.BytesBody(body), int64(len(body))
	}
	return q, nil
}

// join puts a prefix before a target.
func join(prefix, target string) string {
	prefix = strings.TrimRight(prefix, "/")
	if prefix == "" {
		return target
	}
	if !strings.HasPrefix(prefix, "/") {
		prefix = "/" + prefix
	}
	if !strings.HasPrefix(target, "/") {
		target = "/" + target
	}
	return prefix + target
}

// readHTTP reads an answer. Only 200 lets a request pass.
func (s *Service) readHTTP(resp *message.Response, method string, ignored func(guard.Fault)) Outcome {
	switch code := resp.Status; {
	case code == http.StatusOK:
		return Outcome{Decision: Allowed, request: s.copied(resp.Fields, ignored)}
	case code < 200 || code > 599 || code >= 500 && s.FailOpen:
		return s.failed(fmt.Errorf("it answered %d", code))
	case code < 300:
		return Outcome{Decision: Denied, Status: http.StatusForbidden, Reason: s.reason("it answered %d, and only 200 lets a request pass", code)}
	}
	out := Outcome{Decision: Denied, Status: resp.Status, Reason: s.reason("denied with %d", resp.Status)}
	if resp.Status >= 500 {
		out.Decision, out.Reason = Failed, s.reason("it answered %d, and the filter does not fail open", resp.Status)
	}
	for i, f := range resp.Fields {
		if i == guard.MaxFields {
			ignored(guard.TooLarge)
			break
		}
		g, fault := guard.Field(f.Name, f.Value)
		if fault != guard.Fine {
			ignored(fault)
			continue
		}
		out.Fields = append(out.Fields, g)
	}
	if err := out.readBody(resp, method); err != nil {
		// Half a page is worse than none.
		ignored(guard.TooLarge)
		out.Body = nil
		for _, name := range []string{"content-type", "content-encoding", "content-language"} {
			out.Fields.Del(name)
		}
	}
	return out
}

func (o *Outcome) readBody(resp *message.Response, method string) error {
	if resp.Body == nil || method == http.MethodHead {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return err
	}
	if len(b) > maxBody {
		return errTooLarge
	}
	o.Body = b
	return nil
}

// copied are the fields of an answer that go on with the request, in the place of
// the client's.
func (s *Service) copied(fields message.Fields, ignored func(guard.Fault)) []edit {
	var out []edit
	seen := make(map[string]bool)
	for _, f := range fields {
		if len(s.AllowedResponseHeaders) > 0 && !slices.Contains(s.AllowedResponseHeaders, f.Name) ||
			len(s.AllowedResponseHeaders) == 0 && describes(f.Name) {
			continue
		}
		g, fault := guard.Field(f.Name, f.Value)
		if fault == guard.Fine && len(out) == guard.MaxFields {
			fault = guard.TooLarge
		}
		if fault != guard.Fine {
			ignored(fault)
			continue
		}
		e := edit{set, g}
		if seen[g.Name] {
			e.op = add
		}
		seen[g.Name] = true
		out = append(out, e)
	}
	return out
}

// describes reports whether a field is about the message that it is in (RFC 9110
// sections 8, 6.6 and 10.2, RFC 9111) and so would be wrong in another one.
func describes(name string) bool {
	if strings.HasPrefix(name, "content-") {
		return true
	}
	switch name {
	case "date", "server", "via", "age", "etag", "last-modified", "expires", "cache-control", "vary", "accept-ranges", "alt-svc", "allow", "location", "retry-after":
		return true
	}
	return false
}
