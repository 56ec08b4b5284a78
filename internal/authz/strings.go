package authz

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ambit-mesh/ambit/apis/security"
	"github.com/ambit-mesh/ambit/internal/identity"
)

// stringSet is the values of one field that matches strings. A field of
// principals keeps exact values as identities, so that no string has to be
// built to look one up.
type stringSet struct {
	ids      []identity.ID
	idTable  map[identity.ID]struct{}
	exact    map[string]struct{}
	prefixes []string
	suffixes []string
	presence bool
}

var errUnknownMatch = errors.New("kind of match is not known")

// compileStrings gives nil for a field that is not set.
func compileStrings(in []*security.StringMatch, principals bool) (*stringSet, error) {
	if len(in) == 0 {
		return nil, nil
	}
	s := &stringSet{}
	for i, m := range in {
		switch v := m.GetMatchType().(type) {
		case *security.StringMatch_Exact:
			if principals {
				s.addID(v.Exact)
				continue
			}
			if s.exact == nil {
				s.exact = map[string]struct{}{}
			}
			s.exact[v.Exact] = struct{}{}
		case *security.StringMatch_Prefix:
			s.prefixes = append(s.prefixes, v.Prefix)
		case *security.StringMatch_Suffix:
			s.suffixes = append(s.suffixes, v.Suffix)
		case *security.StringMatch_Presence:
			s.presence = true
		default:
			return nil, fmt.Errorf("[%d]: %w", i, errUnknownMatch)
		}
	}
	if len(s.ids) >= manyValues {
		s.idTable = make(map[identity.ID]struct{}, len(s.ids))
		for _, id := range s.ids {
			s.idTable[id] = struct{}{}
		}
	}
	return s, nil
}

// addID keeps a principal. One that is not of the form that identities have
// equals no identity and is not kept.
func (s *stringSet) addID(principal string) {
	if id, ok := splitPrincipal(principal); ok {
		s.ids = append(s.ids, id)
	}
}

// splitPrincipal takes a principal apart without judging its parts.
func splitPrincipal(s string) (identity.ID, bool) {
	parts := strings.Split(s, "/")
	if len(parts) != 5 || parts[1] != "ns" || parts[3] != "sa" {
		return identity.ID{}, false
	}
	return identity.ID{TrustDomain: parts[0], Namespace: parts[2], ServiceAccount: parts[4]}, true
}

// hasString reports whether a value of the field matches v.
func (s *stringSet) hasString(v string) bool {
	if s.presence && v != "" {
		return true
	}
	if s.exact != nil {
		if _, ok := s.exact[v]; ok {
			return true
		}
	}
	for _, p := range s.prefixes {
		if strings.HasPrefix(v, p) {
			return true
		}
	}
	for _, p := range s.suffixes {
		if strings.HasSuffix(v, p) {
			return true
		}
	}
	return false
}

// hasID reports whether a value of the field matches the principal of id. No
// value matches a peer without an identity.
func (s *stringSet) hasID(id *identity.ID) bool {
	if id.IsZero() {
		return false
	}
	if s.presence {
		return true
	}
	if s.idTable != nil {
		if _, ok := s.idTable[*id]; ok {
			return true
		}
	} else {
		for i := range s.ids {
			if s.ids[i] == *id {
				return true
			}
		}
	}
	parts := [...]string{id.TrustDomain, "/ns/", id.Namespace, "/sa/", id.ServiceAccount}
	for _, p := range s.prefixes {
		if hasPrefix(&parts, p) {
			return true
		}
	}
	for _, p := range s.suffixes {
		if hasSuffix(&parts, p) {
			return true
		}
	}
	return false
}

// hasPrefix is strings.HasPrefix on the parts put together.
func hasPrefix(parts *[5]string, prefix string) bool {
	for _, part := range parts {
		if len(prefix) <= len(part) {
			return part[:len(prefix)] == prefix
		}
		if prefix[:len(part)] != part {
			return false
		}
		prefix = prefix[len(part):]
	}
	return prefix == ""
}

// hasSuffix is strings.HasSuffix on the parts put together.
func hasSuffix(parts *[5]string, suffix string) bool {
	for i := len(parts) - 1; i >= 0; i-- {
		part := parts[i]
		if len(suffix) <= len(part) {
			return part[len(part)-len(suffix):] == suffix
		}
		if !strings.HasSuffix(suffix, part) {
			return false
		}
		suffix = suffix[:len(suffix)-len(part)]
	}
	return suffix == ""
}
