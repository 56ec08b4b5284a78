package jwt

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/internal/message"
)

// Verifier judges the requests of a frontend. A nil *Verifier lets all through.
type Verifier struct {
	manager   *Manager
	providers []*provider
	places    []place
	// outputs are the fields that only the waypoint writes.
	outputs []string
	// required is the first provider without whose like no request passes.
	required *provider
	// invalid is why nothing can be judged.
	invalid, invalidPolicy string
}

// place is a location and those who look there.
type place struct {
	location
	providers []*provider
}

func (v *Verifier) add(p *provider) {
	v.providers = append(v.providers, p)
	if p.required && v.required == nil {
		v.required = p
	}
	for _, o := range p.outputs {
		if !slices.Contains(v.outputs, o.header) {
			v.outputs = append(v.outputs, o.header)
		}
	}
	for _, l := range p.locations {
		i := slices.IndexFunc(v.places, func(have place) bool { return have.location == l })
		if i < 0 {
			v.places = append(v.places, place{l, nil})
			i = len(v.places) - 1
		}
		v.places[i].providers = append(v.places[i].providers, p)
	}
}

// Result is what becomes of a request.
type Result struct {
	Allowed bool
	// Status of a refusal: 401, 400 for tokens that contradict each other, 503 for
	// keys that cannot be had, 500 for a configuration that cannot be used.
	Status int
	// Policy that refused, and Reason for people, which names it.
	Policy, Reason string
	// Fields of the refusal: WWW-Authenticate.
	Fields message.Fields
	// Claims of the token; nil without one.
	Claims *Claims
}

// refusal is why a token is not accepted.
type refusal struct {
	status int
	// code of RFC 6750 section 3.1; "" for a request without a token, or for what
	// is not its fault.
	code string
	// outcome is for the metric, why for people. Neither has anything of the token.
	outcome, why string
}

func refuse(outcome, why string) *refusal {
	return &refusal{http.StatusUnauthorized, "invalid_token", outcome, why}
}

// Check judges a request, and changes it: fields for claims are written, and a token
// that is not forwarded is removed. It may wait for keys.
func (v *Verifier) Check(ctx context.Context, req *message.Request) Result {
	if v == nil {
		return Result{Allowed: true}
	}
	if v.invalid != "" {
		v.manager.metrics.refused(v.invalidPolicy, "invalid_config")
		return Result{Status: http.StatusInternalServerError, Policy: v.invalidPolicy, Reason: "tokens cannot be judged: " + v.invalid}
	}
	var (
		result = Result{Allowed: true}
		now    = time.Now()
		some   bool
		// Written once all tokens are known to be good.
		storage [4]accepted
	)
	good := storage[:0]
	for i := range v.places {
		at := &v.places[i]
		raw, ok := at.find(req)
		if !ok {
			return v.refused(at.providers[0], &refusal{http.StatusBadRequest, "invalid_request", "ambiguous", "the request has several tokens in one place"})
		}
		if raw == "" {
			continue
		}
		some = true
		p, claims, no := v.judge(ctx, at, raw, now)
		if no != nil {
			return v.refused(p, no)
		}
		if p.passed != nil {
			p.passed.Inc()
		}
		good = append(good, accepted{p, claims, at})
	}
	if !some && v.required != nil {
		return v.refused(v.required, &refusal{http.StatusUnauthorized, "", "missing", "the request has no token"})
	}
	v.edit(req, good)
	if len(good) > 0 {
		result.Claims = v.first(good).claims
	}
	return result
}

type accepted struct {
	provider *provider
	claims   *Claims
	at       *place
}

// first gives the token of the provider that was configured first.
func (v *Verifier) first(good []accepted) *accepted {
	for _, p := range v.providers {
		for i := range good {
			if good[i].provider == p {
				return &good[i]
			}
		}
	}
	return &good[0]
}

// edit makes the request one that the backend may believe.
func (v *Verifier) edit(req *message.Request, good []accepted) {
	for i := range good {
		if a := &good[i]; !a.provider.forward {
			a.at.strip(req)
		}
	}
	for _, name := range v.outputs {
		req.Fields.Del(name)
	}
	for i := range good {
		a := &good[i]
		for j := range a.provider.outputs {
			o := &a.provider.outputs[j]
			if value, ok := o.value(a.claims); ok {
				req.Fields.Set(o.header, value)
			}
		}
	}
}

// judge gives the provider that accepts a token, or else one and its reason.
func (v *Verifier) judge(ctx context.Context, at *place, raw string, now time.Time) (*provider, *Claims, *refusal) {
	if len(raw) > v.manager.cfg.MaxTokenBytes {
		return at.providers[0], nil, refuse("size", "the token is too long")
	}
	id := sum(raw)
	known := v.manager.cache.get(id, now)
	var (
		t      *token
		claims *Claims
		no     *refusal
	)
	if known != nil {
		claims = known.claims
	} else if t, no = parseToken(raw); no != nil {
		return at.providers[0], nil, no
	} else {
		claims = t.claims
	}
	who := at.providers[0]
	var why *refusal
	for _, p := range at.providers {
		if p.issuer != claims.issuer {
			continue
		}
		no := p.accepts(claims, now, v.manager.cfg.Leeway)
		if no == nil {
			no = v.signed(ctx, p, id, raw, known, &t)
		}
		if no == nil {
			return p, claims, nil
		}
		// The first reason is told, whatever others there are.
		if why == nil {
			who, why = p, no
		}
	}
	if why == nil {
		why = refuse("issuer", "the token's issuer is not accepted")
	}
	return who, nil, why
}

// signed judges the signature; t is read when it is needed.
func (v *Verifier) signed(ctx context.Context, p *provider, id tokenID, raw string, known *verified, t **token) *refusal {
	set := p.source.current(ctx)
	if set == nil {
		return &refusal{http.StatusServiceUnavailable, "", "keys_unavailable", fmt.Sprintf("the keys of the issuer cannot be had from %s", p.uri)}
	}
	if known != nil && set.has(known.key) {
		return nil
	}
	if *t == nil {
		var no *refusal
		if *t, no = parseToken(raw); no != nil {
			return no
		}
	}
	by, tried := set.verify(*t)
	if by == nil && (tried == 0 || (*t).kid == "") && p.source.refresh(ctx) {
		by, tried = p.source.keys.Load().orNone().verify(*t)
	}
	switch {
	case by != nil:
		v.manager.cache.put(&verified{id: id, key: by.id, claims: (*t).claims})
		return nil
	case tried == 0:
		return refuse("key", "the token is signed with a key that the issuer does not have")
	}
	return refuse("signature", "the token's signature is not valid")
}

// orNone makes no keys of none.
func (s *keySet) orNone() *keySet {
	if s == nil {
		return &keySet{}
	}
	return s
}

func (v *Verifier) refused(p *provider, no *refusal) Result {
	v.manager.metrics.refused(p.policy, no.outcome)
	r := Result{Status: no.status, Policy: p.policy, Reason: fmt.Sprintf("policy %s: %s", p.policy, no.why)}
	if no.status == http.StatusServiceUnavailable {
		return r
	}
	// Without a token there is no error to be told of, RFC 6750 section 3.1.
	challenge := `Bearer realm="` + quotable(p.policy) + `"`
	if no.code != "" {
		challenge += `, error="` + no.code + `", error_description="` + no.why + `"`
	}
	r.Fields.Add("www-authenticate", challenge)
	return r
}

// quotable leaves out what a quoted string cannot hold, RFC 9110 section 5.6.4.
func quotable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, s)
}
