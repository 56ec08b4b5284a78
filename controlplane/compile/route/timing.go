package route

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/controlplane/compile/traffic"
)

func (w *worker) duration(field string, d *gatewayv1.Duration) *durationpb.Duration {
	if d == nil {
		return nil
	}
	v, err := traffic.ParseDuration(*d)
	if err != nil {
		w.unsupported(field, "%v", err)
		return nil
	}
	return durationpb.New(v)
}

func (w *worker) timeouts(t *gatewayv1.HTTPRouteTimeouts) {
	if t == nil {
		return
	}
	w.rule.Timeouts = &waypoint.Timeouts{
		Request:        w.duration(w.at+".timeouts.request", t.Request),
		BackendRequest: w.duration(w.at+".timeouts.backendRequest", t.BackendRequest),
	}
	request, backend := w.rule.GetTimeouts().GetRequest().AsDuration(), w.rule.GetTimeouts().GetBackendRequest().AsDuration()
	if request > 0 && backend > request {
		w.unsupported(w.at+".timeouts.backendRequest", "%s is longer than request, %s, which it is a part of", backend, request)
	}
}

// retry translates the retries of GEP-1731. Connections that fail and requests
// that were refused unprocessed are tried again, too, as the GEP demands; one
// that broke after it was sent is not.
func (w *worker) retry(r *gatewayv1.HTTPRouteRetry) {
	if r == nil {
		return
	}
	out := &waypoint.Retry{
		On:       []waypoint.Retry_On{waypoint.Retry_ON_CONNECT_FAILURE, waypoint.Retry_ON_REFUSED_STREAM, waypoint.Retry_ON_TIMEOUT},
		Attempts: 1, Backoff: w.duration(w.at+".retry.backoff", r.Backoff), MaxBodyBytes: traffic.DefaultRetryBody,
	}
	if r.Attempts != nil {
		out.Attempts = uint32(max(*r.Attempts, 0)) // #nosec G115 -- not negative
		if *r.Attempts < 0 || *r.Attempts > traffic.MaxAttempts {
			w.unsupported(w.at+".retry.attempts", "%d is not possible; use 0 to %d", *r.Attempts, traffic.MaxAttempts)
		}
	}
	for i, code := range r.Codes {
		if code < 400 || code > 599 {
			w.unsupported(fmt.Sprintf("%s.retry.codes[%d]", w.at, i), "%d cannot be retried; use 400 to 599", code)
			continue
		}
		out.Codes = append(out.Codes, uint32(code))
	}
	slices.Sort(out.Codes)
	out.Codes = slices.Compact(out.Codes)
	w.rule.Retry = out
}

// session translates the session persistence of GEP-1619.
func (w *worker) session(s *gatewayv1.SessionPersistence) {
	if s == nil {
		return
	}
	out := &waypoint.SessionPersistence{
		Name:            w.sessionName(),
		AbsoluteTimeout: w.duration(w.at+".sessionPersistence.absoluteTimeout", s.AbsoluteTimeout),
	}
	if s.SessionName != nil {
		out.Name = *s.SessionName
		if !traffic.Token(out.GetName()) {
			w.unsupported(w.at+".sessionPersistence.sessionName", "%q is not the name of a cookie or a header", out.GetName())
		}
	}
	switch {
	case s.Type == nil || *s.Type == gatewayv1.CookieBasedSessionPersistence:
		cookie := &waypoint.CookieSession{Path: sessionPath(w.rule)}
		if c := s.CookieConfig; c != nil && c.LifetimeType != nil && *c.LifetimeType == gatewayv1.PermanentCookieLifetimeType {
			cookie.Permanent = true
			if out.GetAbsoluteTimeout() == nil {
				w.unsupported(w.at+".sessionPersistence.absoluteTimeout", "a Permanent cookie needs it: it is how long the cookie lives")
			}
		}
		out.Type = &waypoint.SessionPersistence_Cookie{Cookie: cookie}
	case *s.Type == gatewayv1.HeaderBasedSessionPersistence:
		out.Type = &waypoint.SessionPersistence_Header{Header: &waypoint.HeaderSession{}}
	default:
		w.unsupported(w.at+".sessionPersistence.type", "%q is not a type; use Cookie or Header", *s.Type)
	}
	w.rule.SessionPersistence = out
}

// sessionName is that of a session which was given none: one that no other rule
// has.
func (w *worker) sessionName() string {
	sum := sha256.Sum256([]byte(w.key.String() + "\x00" + w.at))
	return "ambit-session-" + hex.EncodeToString(sum[:4])
}

// sessionPath is what a cookie is sent for: what the rule matches or, when that
// cannot be told, everything (GEP-1619).
func sessionPath(r *waypoint.Rule) string {
	if len(r.GetMatches()) != 1 {
		return "/"
	}
	switch p := r.GetMatches()[0].GetPath().GetType().(type) {
	case *waypoint.PathMatch_Exact:
		return p.Exact
	case *waypoint.PathMatch_Prefix:
		return p.Prefix
	}
	return "/"
}
