package jwt

import (
	"bytes"
	stdjson "encoding/json"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/json"
)

// Limits of claims. Beyond them a token is refused: a claim that were left out
// might be the one that a policy denies.
const (
	maxClaims     = 1024
	maxClaimBytes = 256 << 10
	maxDepth      = 16
)

// Claims of a token that has been verified. A nil *Claims has none.
type Claims struct {
	issuer, subject    string
	audiences          []string
	expires, notBefore time.Time
	values             map[string][]string
	size               int
}

// Issuer is the claim iss.
func (c *Claims) Issuer() string {
	if c == nil {
		return ""
	}
	return c.issuer
}

// Subject is the claim sub.
func (c *Claims) Subject() string {
	if c == nil {
		return ""
	}
	return c.subject
}

// Principal is issuer and subject, <iss>/<sub>; "" if one is missing.
func (c *Claims) Principal() string {
	if c == nil || c.issuer == "" || c.subject == "" {
		return ""
	}
	return c.issuer + "/" + c.subject
}

// Values gives the values of a claim: one, or those of a list. A claim in an object
// has the names of both with a dot between; a claim whose own name has dots goes
// before such. What is separated by spaces in scope and scp is a list (RFC 8693
// section 4.2). The slice is not to be changed.
func (c *Claims) Values(name string) []string {
	if c == nil {
		return nil
	}
	return c.values[name]
}

var (
	errClaims   = errors.New("not an object of claims")
	errTooMany  = errors.New("too many claims")
	errDate     = errors.New("not a date")
	errTyped    = errors.New("a registered claim of the wrong type")
	errTooDeep  = errors.New("claims are nested too deeply")
	errTrailing = errors.New("more than one value")
)

// parseClaims reads the payload of a token. Names that occur twice are an error, as
// RFC 7519 section 4 allows.
func parseClaims(raw []byte) (*Claims, error) {
	// It bounds the depth, which the stricter decoder does not.
	if !stdjson.Valid(raw) {
		return nil, errClaims
	}
	var all map[string]any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.SetNumberType(json.UnmarshalJSONNumber)
	if err := dec.Decode(&all); err != nil {
		return nil, err
	}
	if all == nil {
		return nil, errClaims
	}
	if dec.More() {
		return nil, errTrailing
	}
	c := &Claims{values: make(map[string][]string, len(all))}
	if err := c.register(all); err != nil {
		return nil, err
	}
	if err := c.flatten(all); err != nil {
		return nil, err
	}
	return c, nil
}

// register reads the claims that have a meaning of their own, RFC 7519 section 4.1.
func (c *Claims) register(all map[string]any) error {
	for _, s := range []struct {
		name string
		to   *string
	}{{"iss", &c.issuer}, {"sub", &c.subject}} {
		if v, ok := all[s.name]; ok && v != nil {
			if *s.to, ok = v.(string); !ok {
				return errTyped
			}
		}
	}
	for _, d := range []struct {
		name string
		to   *time.Time
	}{{"exp", &c.expires}, {"nbf", &c.notBefore}} {
		if v, ok := all[d.name]; ok && v != nil {
			var err error
			if *d.to, err = date(v); err != nil {
				return err
			}
		}
	}
	switch v := all["aud"].(type) {
	case nil:
	case string:
		c.audiences = []string{v}
	case []any:
		for _, one := range v {
			s, ok := one.(string)
			if !ok {
				return errTyped
			}
			c.audiences = append(c.audiences, s)
		}
	default:
		return errTyped
	}
	return nil
}

// date reads a NumericDate.
func date(v any) (time.Time, error) {
	n, ok := v.(json.Number)
	if !ok {
		return time.Time{}, errDate
	}
	f, err := n.Float64()
	switch {
	case err != nil || math.IsNaN(f):
		return time.Time{}, errDate
	case f >= 1<<40: // in 30,000 years
		return time.Unix(1<<40, 0), nil
	case f < 0:
		return time.Unix(0, 0), nil
	}
	sec, frac := math.Modf(f)
	return time.Unix(int64(sec), int64(frac*1e9)), nil
}

// level is objects that are equally deep, with the names that lead to them.
type level struct {
	prefix string
	object map[string]any
}

// flatten makes values. It goes by depth, so that what has fewer levels goes first,
// and by name, so that it is the same each time.
func (c *Claims) flatten(all map[string]any) error {
	now := []level{{"", all}}
	for depth := 0; len(now) > 0; depth++ {
		if depth == maxDepth {
			return errTooDeep
		}
		var next []level
		for _, l := range now {
			for _, name := range slices.Sorted(maps.Keys(l.object)) {
				path := l.prefix + name
				if inner, ok := l.object[name].(map[string]any); ok {
					next = append(next, level{path + ".", inner})
					continue
				}
				if err := c.put(path, l.object[name]); err != nil {
					return err
				}
			}
		}
		now = next
	}
	return nil
}

func (c *Claims) put(path string, v any) error {
	if _, ok := c.values[path]; ok {
		return nil
	}
	var list []string
	switch v := v.(type) {
	case []any:
		list = make([]string, 0, len(v))
		for _, one := range v {
			if s, ok := scalar(one); ok {
				list = append(list, s)
			}
		}
	case string:
		if path == "scope" || path == "scp" {
			list = strings.Fields(v)
			break
		}
		list = []string{v}
	default:
		s, ok := scalar(v)
		if !ok {
			return nil
		}
		list = []string{s}
	}
	c.values[path] = list
	c.size += len(path) + 64
	for _, s := range list {
		c.size += len(s) + 16
	}
	if len(c.values) > maxClaims || c.size > maxClaimBytes {
		return errTooMany
	}
	return nil
}

func scalar(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		if v {
			return "true", true
		}
		return "false", true
	}
	return "", false
}
