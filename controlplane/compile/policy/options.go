package policy

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/internal/identity"
)

// DefaultRootNamespace holds mesh-wide policies unless Options say otherwise.
const DefaultRootNamespace = "ambit-system"

// Options are the mesh-wide constants of a translation.
type Options struct {
	// RootNamespace is where a Namespace target means the mesh; ambit-system
	// when empty.
	RootNamespace string
	// TrustDomain of the identities that service accounts stand for;
	// cluster.local when empty.
	TrustDomain string
}

func (o Options) withDefaults() Options {
	if o.RootNamespace == "" {
		o.RootNamespace = DefaultRootNamespace
	}
	if o.TrustDomain == "" {
		o.TrustDomain = identity.DefaultTrustDomain
	}
	return o
}

// Services finds Services. Service gives nil when there is none of that name, and
// Waypoint the waypoint that one uses, false if it uses none.
type Services interface {
	Service(namespace, name string) *corev1.Service
	Waypoint(namespace, name string) (types.NamespacedName, bool)
	// External says whether there is an ExternalService of that name, and gives its
	// waypoint, zero for none.
	External(namespace, name string) (waypoint types.NamespacedName, found bool)
}

// Problem is one reason why a policy is refused.
type Problem struct {
	// Field is the path of the offending field, for example
	// spec.rules[0].sources[1].spiffe.
	Field string
	// Message says what is wrong and what to do.
	Message string
}

// String gives "field: message".
func (p Problem) String() string { return p.Field + ": " + p.Message }

// maxListed bounds how many problems a condition spells out.
const maxListed = 3

func listed(problems []Problem) string {
	var b strings.Builder
	for i, p := range problems {
		if i == maxListed {
			b.WriteString("; and more")
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(p.String())
	}
	return b.String()
}
