package identity

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// DefaultTrustDomain is the trust domain that an empty field stands for.
const DefaultTrustDomain = "cluster.local"

// ID is a workload identity. It is comparable and usable as a map key. The
// zero ID means "no identity".
type ID struct {
	TrustDomain    string
	Namespace      string
	ServiceAccount string
}

// ErrMalformed is wrapped by every error of Parse and ParsePrincipal.
var ErrMalformed = errors.New("malformed SPIFFE ID")

const scheme = "spiffe://"

// IsZero reports whether there is no identity.
func (id ID) IsZero() bool { return id == ID{} }

// String gives the SPIFFE ID, or "" for the zero ID.
func (id ID) String() string {
	if id.IsZero() {
		return ""
	}
	return scheme + id.Principal()
}

// Append appends what String gives.
func (id ID) Append(b []byte) []byte {
	if id.IsZero() {
		return b
	}
	b = append(append(b, scheme...), id.TrustDomain...)
	b = append(append(b, "/ns/"...), id.Namespace...)
	return append(append(b, "/sa/"...), id.ServiceAccount...)
}

// Principal gives the SPIFFE ID without its scheme, the form that policies
// compare, or "" for the zero ID.
func (id ID) Principal() string {
	if id.IsZero() {
		return ""
	}
	return id.TrustDomain + "/ns/" + id.Namespace + "/sa/" + id.ServiceAccount
}

// URL gives the SPIFFE ID as the URI of a certificate's SAN.
func (id ID) URL() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: id.TrustDomain, Path: "/ns/" + id.Namespace + "/sa/" + id.ServiceAccount}
}

// Parse reads spiffe://<trust domain>/ns/<namespace>/sa/<service account>. It
// accepts exactly the characters of the SPIFFE ID standard (sections 2.1 and
// 2.2), and no other path shape.
func Parse(s string) (ID, error) {
	rest, ok := strings.CutPrefix(s, scheme)
	if !ok {
		return ID{}, fmt.Errorf("%w %q: must start with %s", ErrMalformed, clip(s), scheme)
	}
	return ParsePrincipal(rest)
}

// ParsePrincipal reads an ID in the form that Principal gives.
func ParsePrincipal(s string) (ID, error) {
	if len(s) > 2048-len(scheme) {
		return ID{}, fmt.Errorf("%w: longer than 2048 bytes", ErrMalformed)
	}
	parts := strings.Split(s, "/")
	if len(parts) != 5 || parts[1] != "ns" || parts[3] != "sa" {
		return ID{}, fmt.Errorf("%w %q: want <trust domain>/ns/<namespace>/sa/<service account>", ErrMalformed, clip(s))
	}
	id := ID{TrustDomain: parts[0], Namespace: parts[2], ServiceAccount: parts[4]}
	if err := ValidateTrustDomain(id.TrustDomain); err != nil {
		return ID{}, err
	}
	for _, seg := range []string{id.Namespace, id.ServiceAccount} {
		if seg == "" || seg == "." || seg == ".." || strings.IndexFunc(seg, notSegment) >= 0 {
			return ID{}, fmt.Errorf("%w %q: path segment %q", ErrMalformed, clip(s), clip(seg))
		}
	}
	return id, nil
}

// ValidateTrustDomain checks the characters of a trust domain name.
func ValidateTrustDomain(td string) error {
	if td == "" || len(td) > 255 || strings.IndexFunc(td, notTrustDomain) >= 0 {
		return fmt.Errorf("%w: trust domain %q: want 1 to 255 of a-z 0-9 . - _", ErrMalformed, clip(td))
	}
	return nil
}

func notTrustDomain(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_'
}

func notSegment(r rune) bool {
	return notTrustDomain(r) && (r < 'A' || r > 'Z')
}

func clip(s string) string {
	if len(s) > 128 {
		return s[:128] + "..."
	}
	return s
}
