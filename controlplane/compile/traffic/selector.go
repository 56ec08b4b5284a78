package traffic

import (
	"fmt"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/apis/waypoint"
)

// selected is the wire form of a TrafficSelector, apart from its backends.
type selected struct {
	rule    string
	sources []*waypoint.Source
	matches []*waypoint.Match
}

// selector reads which requests a rule is about.
func (r *Report) selector(at string, index int, s *v1alpha1.TrafficSelector, names map[string]bool) selected {
	out := selected{rule: s.Name}
	if s.Name == "" {
		out.rule = strconv.Itoa(index)
	} else {
		if len(validation.IsDNS1123Label(s.Name)) > 0 {
			r.Add(at+".name", "%q must be at most 63 of a-z 0-9 and -, beginning and ending with a letter or digit", s.Name)
		}
		if names[s.Name] {
			r.Add(at+".name", "there is another rule named %q; rule names must be unique in the policy", s.Name)
		}
		names[s.Name] = true
	}
	r.atMost(at+".sources", len(s.Sources), maxSources)
	for i, src := range s.Sources {
		if len(validation.IsDNS1123Label(string(src.Namespace))) > 0 {
			r.Add(fmt.Sprintf("%s.sources[%d].namespace", at, i), "%q is not the name of a namespace", src.Namespace)
		}
		out.sources = append(out.sources, &waypoint.Source{Namespace: string(src.Namespace), ServiceAccount: src.ServiceAccount})
	}
	r.atMost(at+".matches", len(s.Matches), maxMatches)
	for i := range s.Matches {
		out.matches = append(out.matches, r.HTTPMatch(fmt.Sprintf("%s.matches[%d]", at, i), &s.Matches[i]))
	}
	r.atMost(at+".backends", len(s.Backends), maxTargets)
	return out
}

// chosenBackends gives the names in WDS of the backends that a rule is about.
func chosenBackends(mesh Mesh, namespace string, s *v1alpha1.TrafficSelector) []string {
	out := make([]string, 0, len(s.Backends))
	for _, b := range s.Backends {
		out = append(out, mesh.ServiceName(backendName(namespace, b)))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func backendName(namespace string, b v1alpha1.TrafficBackend) types.NamespacedName {
	if b.Namespace != nil {
		namespace = string(*b.Namespace)
	}
	return types.NamespacedName{Namespace: namespace, Name: string(b.Name)}
}

// missingBackends says which of the Services that a rule names do not exist.
func missingBackends(mesh Mesh, namespace, at string, s *v1alpha1.TrafficSelector, r *Report) {
	for i, b := range s.Backends {
		if n := backendName(namespace, b); mesh.Service(n) == nil {
			r.Add(fmt.Sprintf("%s.backends[%d]", at, i), "there is no Service %s, so that the rule does nothing for it", n)
		}
	}
}

// millionths gives a share; all when none is given.
func (r *Report) millionths(at string, s v1alpha1.Share) uint32 {
	switch {
	case s.Percent != nil && s.Fraction != nil:
		r.Add(at, "percent and fraction exclude each other; remove one")
	case s.Percent != nil:
		return r.number(at+".percent", s.Percent, 0, 0, 100) * (all / 100)
	case s.Fraction != nil:
		return r.fraction(at+".fraction", s.Fraction)
	}
	return all
}

// all is the share of everything, in millionths.
const all = 1_000_000

// fraction gives a share in millionths.
func (r *Report) fraction(at string, f *gatewayv1.Fraction) uint32 {
	denominator := int32(100)
	if f.Denominator != nil {
		denominator = *f.Denominator
	}
	if denominator < 1 || f.Numerator < 0 || f.Numerator > denominator {
		r.Add(at, "%d of %d is not a share", f.Numerator, denominator)
		return 0
	}
	return uint32(int64(f.Numerator) * all / int64(denominator)) // #nosec G115 -- at most all
}
