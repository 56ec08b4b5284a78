package ca

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/controlplane/internal/nodes"
	"github.com/ambit-mesh/ambit/internal/identity"
)

// Defaults of Config.
const (
	DefaultTTL              = 24 * time.Hour
	DefaultRootLife         = 10 * 365 * 24 * time.Hour
	DefaultIntermediateLife = 365 * 24 * time.Hour
	// leafSkew is how far clocks of nodes may be behind ours, if lives are not
	// so short that a tenth of them is less.
	leafSkew = 2 * time.Minute
)

// Authorizer says whether a caller may have an identity: nil if a live pod of it
// runs on the node that calls, or if it is the calling workload's own. The error
// is the reason, for people.
type Authorizer interface {
	Authorize(caller nodes.Caller, id identity.ID) error
}

// Config is what an Authority is made of.
type Config struct {
	// TrustDomain of all identities that are granted.
	TrustDomain string
	// Dir holds the authority's private state. Made with mode 0700.
	Dir string
	// BundleFile receives the roots, PEM, readable by all.
	BundleFile string
	// Store keeps the state where replicas share it, in place of Dir. Only who
	// Leads then renews and rotates; the others follow.
	Store Store
	Leads func() bool
	// PluggedIn are an operator's files to issue from; the zero value makes an
	// own root.
	PluggedIn Files
	// TTL is the longest life of a certificate and the one that is given when
	// none is asked for.
	TTL time.Duration
	// MinTTL is the shortest; an hour, or TTL if that is less, when zero.
	MinTTL time.Duration
	// RootLife and IntermediateLife are of what is made here.
	RootLife, IntermediateLife time.Duration
	// RotationOverlap is how long a new root is published before it issues; at
	// least TTL. TTL and a tenth of it when zero.
	RotationOverlap time.Duration
	// ServingNames are the DNS names and IP addresses of the serving certificate.
	ServingNames []string
	// RatePerNode limits certificates per second and node, RateBurst what may
	// come at once; 50 and 500 when zero.
	RatePerNode float64
	RateBurst   int

	// Revoked is called with the revocation lists, DER, when they are another; may be
	// nil.
	Revoked func(lists [][]byte)

	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// Log gets events, and under the name "audit" each grant and refusal.
	Log     *zap.Logger
	Metrics prometheus.Registerer
}

// complete validates c and fills what is zero.
func (c Config) complete() (Config, error) {
	if err := identity.ValidateTrustDomain(c.TrustDomain); err != nil {
		return c, fmt.Errorf("ca: TrustDomain: %w", err)
	}
	if c.Store == nil && !c.PluggedIn.enabled() && c.Dir == "" || c.Store == nil && c.BundleFile == "" {
		return c, errors.New("ca: Dir and BundleFile must be set, or Store")
	}
	if c.Leads == nil {
		c.Leads = func() bool { return true }
	}
	if len(c.ServingNames) == 0 {
		return c, errors.New("ca: ServingNames: at least one DNS name or IP address is needed")
	}
	orDefault(&c.TTL, DefaultTTL)
	orDefault(&c.MinTTL, min(time.Hour, c.TTL))
	orDefault(&c.RootLife, DefaultRootLife)
	orDefault(&c.IntermediateLife, min(DefaultIntermediateLife, c.RootLife/2))
	orDefault(&c.RotationOverlap, c.TTL+c.TTL/10)
	orDefault(&c.RatePerNode, 50)
	orDefault(&c.RateBurst, 500)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	switch {
	case c.TTL < 2*time.Second:
		return c, fmt.Errorf("ca: TTL %s: a certificate cannot live less than 2s", c.TTL)
	case c.MinTTL > c.TTL || c.MinTTL < time.Second:
		return c, fmt.Errorf("ca: MinTTL %s: want 1s to TTL (%s)", c.MinTTL, c.TTL)
	case c.IntermediateLife < 2*c.TTL:
		return c, fmt.Errorf("ca: IntermediateLife %s: must be at least twice TTL (%s)", c.IntermediateLife, c.TTL)
	case c.RootLife < max(c.IntermediateLife, 5*(c.RotationOverlap+c.TTL)):
		return c, fmt.Errorf("ca: RootLife %s: must be at least IntermediateLife (%s) and five times RotationOverlap and TTL together (%s), so that a rotation ends before the root does", c.RootLife, c.IntermediateLife, c.RotationOverlap+c.TTL)
	case c.RotationOverlap < c.TTL:
		return c, fmt.Errorf("ca: RotationOverlap %s: must be at least TTL (%s), or a holder that has not renewed would meet a root it does not know", c.RotationOverlap, c.TTL)
	}
	return c, c.PluggedIn.validate()
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
