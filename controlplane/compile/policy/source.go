package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/internal/identity"
)

func (r *report) sources(path string, sources []v1alpha1.AuthorizationSource) {
	r.atMost(path, len(sources), maxSources)
	for i := range sources {
		r.source(fmt.Sprintf("%s[%d]", path, i), &sources[i])
	}
}

func (r *report) source(path string, s *v1alpha1.AuthorizationSource) {
	union := []struct {
		field string
		kind  v1alpha1.AuthorizationSourceType
		set   bool
	}{
		{"serviceAccount", v1alpha1.SourceServiceAccount, s.ServiceAccount != nil},
		{"spiffe", v1alpha1.SourceSPIFFE, s.SPIFFE != ""},
		{"namespace", v1alpha1.SourceNamespace, s.Namespace != ""},
	}
	known := s.Type == v1alpha1.SourceAddressBlock
	for _, u := range union {
		known = known || s.Type == u.kind
		if u.set != (s.Type == u.kind) {
			r.add(path+"."+u.field, "must be set exactly when type is %s", u.kind)
		}
	}
	if !known {
		r.add(path+".type", "%q is not a type of source; use ServiceAccount, SPIFFE, Namespace or AddressBlock", s.Type)
	}
	if a := s.ServiceAccount; a != nil {
		r.serviceAccount(path+".serviceAccount", a)
	}
	if s.SPIFFE != "" {
		if err := checkSPIFFE(s.SPIFFE); err != nil {
			r.add(path+".spiffe", "%v", err)
		}
	}
	if s.Namespace != "" {
		r.dnsLabel(path+".namespace", s.Namespace)
	}
	if s.AddressBlock != "" || s.Type == v1alpha1.SourceAddressBlock {
		if _, err := parseBlock(s.AddressBlock); err != nil {
			r.add(path+".addressBlock", "%v", err)
		}
	}
}

func (r *report) serviceAccount(path string, a *v1alpha1.AuthorizationSourceServiceAccount) {
	if a.Namespace != "" {
		r.dnsLabel(path+".namespace", a.Namespace)
	}
	if a.Name != "*" && len(validation.IsDNS1123Subdomain(a.Name)) > 0 {
		r.add(path+".name", "%q is not the name of a service account; use * for all of the namespace", a.Name)
	}
}

// maxSPIFFE bounds an identity, with or without a wildcard.
const maxSPIFFE = 1024

func notInPattern(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-/*", r)
}

var errWildcard = errors.New("one * may stand at the end, or directly after spiffe://")

// checkSPIFFE checks an identity that may have a wildcard. An exact identity
// must be one that a workload can have: another one would never match, and a
// DENY rule with it would do nothing.
func checkSPIFFE(s string) error {
	id, ok := strings.CutPrefix(s, "spiffe://")
	if !ok {
		return fmt.Errorf("%q must start with spiffe://", s)
	}
	if len(s) > maxSPIFFE {
		return fmt.Errorf("longer than %d bytes", maxSPIFFE)
	}
	if i := strings.IndexFunc(id, notInPattern); i >= 0 {
		return fmt.Errorf("%q has a character that no identity has, at byte %d", s, len("spiffe://")+i)
	}
	switch strings.Count(id, "*") {
	case 0:
		_, err := identity.ParsePrincipal(id)
		return err
	case 1:
	default:
		return fmt.Errorf("%q: %w", s, errWildcard)
	}
	if strings.HasPrefix(id, "*") {
		return nil
	}
	prefix, ok := strings.CutSuffix(id, "*")
	if !ok {
		return fmt.Errorf("%q: %w", s, errWildcard)
	}
	td, _, ok := strings.Cut(prefix, "/")
	if !ok {
		return fmt.Errorf("%q: before a * at the end the whole trust domain must be given: spiffe://<trust domain>/...*", s)
	}
	return identity.ValidateTrustDomain(td)
}

// parseBlock reads an address or a CIDR block; bits beyond the prefix are
// dropped.
func parseBlock(s string) (netip.Prefix, error) {
	const want = "must be an IP address or a CIDR block, for example 10.0.0.0/8"
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		addr, addrErr := netip.ParseAddr(s)
		if addrErr != nil || addr.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q %s", s, want)
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	if prefix.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is an IPv4 address in IPv6 form; write it as IPv4", s)
	}
	return prefix.Masked(), nil
}
