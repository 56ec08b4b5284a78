package jwt

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/waypoint/internal/guard"
)

// provider is an issuer whose tokens are accepted.
type provider struct {
	policy    string
	issuer    string
	audiences []string
	locations []location
	outputs   []output
	forward   bool
	required  bool
	// uri of the keys; "" for those that are written down.
	uri    string
	source *source
	passed prometheus.Counter
}

// output is a field that a claim is written to.
type output struct{ header, claim string }

// compile reads the providers of a frontend. The verifier lacks the sources of
// those that have a URI; uris says how long their keys are good for.
func (m *Manager) compile(list []*waypoint.JWTProvider) (*Verifier, map[string]time.Duration, []error) {
	v := &Verifier{manager: m}
	uris := make(map[string]time.Duration)
	var errs []error
	for i, pb := range list {
		p, good, err := m.provider(pb)
		if err != nil {
			err = fmt.Errorf("policy %s: jwt_providers[%d]: %w", pb.GetPolicy(), i, err)
			errs = append(errs, err)
			if v.invalid == "" {
				v.invalid, v.invalidPolicy = err.Error(), pb.GetPolicy()
			}
			continue
		}
		if old, ok := uris[p.uri]; p.uri != "" && (!ok || good < old) {
			uris[p.uri] = good
		}
		v.add(p)
	}
	return v, uris, errs
}

func (m *Manager) provider(pb *waypoint.JWTProvider) (*provider, time.Duration, error) {
	p := &provider{
		policy: pb.GetPolicy(), issuer: pb.GetIssuer(), audiences: pb.GetAudiences(), forward: pb.GetForward(), required: pb.GetRequired(),
		passed: m.metrics.accepted(pb.GetPolicy()),
	}
	if p.issuer == "" {
		return nil, 0, errors.New("issuer: is missing; give the iss of the tokens")
	}
	good := m.cfg.Refresh
	if d := pb.GetCacheDuration(); d != nil {
		if good = d.AsDuration(); good <= 0 {
			return nil, 0, fmt.Errorf("cache_duration: %v is not positive; leave it out for %v", good, m.cfg.Refresh)
		}
	}
	if err := p.readKeys(pb); err != nil {
		return nil, 0, err
	}
	if err := p.readLocations(pb.GetLocations()); err != nil {
		return nil, 0, err
	}
	if err := p.readOutputs(pb.GetOutputClaims()); err != nil {
		return nil, 0, err
	}
	return p, good, nil
}

func (p *provider) readKeys(pb *waypoint.JWTProvider) error {
	switch k := pb.GetKeys().(type) {
	case *waypoint.JWTProvider_Jwks:
		set, err := parseKeys([]byte(k.Jwks))
		if err != nil {
			return fmt.Errorf("jwks: %w; write a JWK set as RFC 7517 has it", err)
		}
		if len(set.keys) == 0 {
			return fmt.Errorf("jwks: none of its %d keys can be used; give public RSA keys of %d bits or more, EC keys or Ed25519 keys", set.skipped, minRSABits)
		}
		p.source = inline(set)
	case *waypoint.JWTProvider_JwksUri:
		u, err := url.Parse(k.JwksUri)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
			return fmt.Errorf("jwks_uri: %q cannot be fetched; give an https or http URI without user and password", redacted(u))
		}
		u.Fragment = ""
		p.uri = u.String()
	default:
		return errors.New("keys: are missing; give jwks or jwks_uri")
	}
	return nil
}

// redacted keeps passwords out of logs.
func redacted(u *url.URL) string {
	if u == nil {
		return ""
	}
	return u.Redacted()
}

func (p *provider) readLocations(list []*waypoint.JWTLocation) error {
	if len(list) == 0 {
		p.locations = []location{{kind: inHeader, name: "authorization", prefix: bearer}}
		return nil
	}
	for i, pb := range list {
		l := location{prefix: pb.GetPrefix()}
		switch t := pb.GetType().(type) {
		case *waypoint.JWTLocation_Header:
			name, fault := guard.Name(t.Header)
			if fault != guard.Fine {
				return fmt.Errorf("locations[%d].header: no token can be in %q; name another header", i, t.Header)
			}
			l.kind, l.name = inHeader, name
			if name == "authorization" && l.prefix == "" {
				l.prefix = bearer
			}
		case *waypoint.JWTLocation_QueryParam:
			l.kind, l.name = inQuery, t.QueryParam
		case *waypoint.JWTLocation_Cookie:
			l.kind, l.name = inCookie, t.Cookie
		default:
			return fmt.Errorf("locations[%d]: is of no known type; use header, query_param or cookie", i)
		}
		if l.name == "" {
			return fmt.Errorf("locations[%d]: has no name; give that of the query parameter or cookie", i)
		}
		p.locations = append(p.locations, l)
	}
	return nil
}

func (p *provider) readOutputs(list []*waypoint.ClaimHeader) error {
	for i, pb := range list {
		name, fault := guard.Name(pb.GetHeader())
		if fault != guard.Fine {
			return fmt.Errorf("output_claims[%d].header: %q cannot be set; name another header", i, pb.GetHeader())
		}
		if pb.GetClaim() == "" {
			return fmt.Errorf("output_claims[%d].claim: is missing; name the claim that %s is to have", i, name)
		}
		p.outputs = append(p.outputs, output{name, pb.GetClaim()})
	}
	return nil
}

// accepts judges what does not need a key.
func (p *provider) accepts(c *Claims, now time.Time, leeway time.Duration) *refusal {
	switch {
	case !c.expires.IsZero() && now.After(c.expires.Add(leeway)):
		return refuse("expired", "the token has expired")
	case !c.notBefore.IsZero() && now.Add(leeway).Before(c.notBefore):
		return refuse("early", "the token is not valid yet")
	case len(p.audiences) > 0 && !slices.ContainsFunc(c.audiences, func(a string) bool { return slices.Contains(p.audiences, a) }):
		return refuse("audience", "the token is for another audience")
	}
	return nil
}

// value is what a field for a claim has; not ok means that the claim cannot be
// written to a field.
func (o *output) value(c *Claims) (string, bool) {
	values := c.Values(o.claim)
	if values == nil {
		return "", false
	}
	v, fault := guard.Value(strings.Join(values, ","))
	return v, fault == guard.Fine
}
