package ca

import (
	"crypto"
	"crypto/x509"
	"slices"
	"time"
)

// phase of a root's rotation; the package comment draws them.
type phase string

const (
	steady      phase = "steady"
	introducing phase = "introducing"
	retiring    phase = "retiring"
)

// generation is one root and the certificate that issues under it. Keys of a
// generation that is being retired are gone.
type generation struct {
	root    *x509.Certificate
	rootKey crypto.Signer
	cert    *x509.Certificate
	key     crypto.Signer
	// longestTTL is the longest life that a certificate of this generation can
	// have been given, whatever the configuration says today.
	longestTTL time.Duration
}

// state is what an authority with an own root remembers. It is immutable.
type state struct {
	phase phase
	// until is when the phase ends; zero when steady.
	until   time.Time
	issuing *generation
	// other is published too: the next generation or the one before.
	other *generation
}

func (s *state) trust() *trust {
	g := s.issuing
	is := &issuer{cert: g.cert, key: g.key, chain: []string{encodeCert(g.cert)}}
	if s.other != nil {
		return newTrust(is, g.root, s.other.root)
	}
	return newTrust(is, g.root)
}

// shares says whether the two publish a root in common.
func (s *state) shares(other *state) bool {
	theirs := other.trust().roots
	return slices.ContainsFunc(s.trust().roots, func(r *x509.Certificate) bool { return slices.ContainsFunc(theirs, r.Equal) })
}

// mintGeneration makes a root and its issuing certificate.
func mintGeneration(cfg *Config, now time.Time) (*generation, error) {
	root, rootKey, err := mintRoot(cfg.TrustDomain, now, cfg.RootLife)
	if err != nil {
		return nil, err
	}
	cert, key, err := mintIntermediate(cfg.TrustDomain, root, rootKey, now, cfg.IntermediateLife)
	if err != nil {
		return nil, err
	}
	return &generation{root: root, rootKey: rootKey, cert: cert, key: key, longestTTL: cfg.TTL}, nil
}

// worn is when a certificate has used up four fifths of its life.
func worn(c *x509.Certificate) time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 5 * 4)
}

// due is when step has something to do.
func (s *state) due() time.Time {
	at := s.until
	if s.phase == steady {
		at = worn(s.issuing.root)
	}
	if renew := worn(s.issuing.cert); s.issuing.renewable() && renew.Before(at) {
		at = renew
	}
	return at
}

// renewable says whether a new issuing certificate would live longer.
func (g *generation) renewable() bool { return g.root.NotAfter.After(g.cert.NotAfter) }

// step gives the state that follows at now and what happened, or s and "".
func (s *state) step(cfg *Config, now time.Time) (*state, string, error) {
	switch {
	case s.phase == introducing && !now.Before(s.until):
		old := &generation{root: s.issuing.root, cert: s.issuing.cert, longestTTL: s.issuing.longestTTL}
		margin := min(leafSkew, old.longestTTL/10)
		return &state{
			phase:   retiring,
			until:   now.Add(old.longestTTL + margin),
			issuing: s.other, other: old,
		}, "issuing from the new root; the old one stays published until its last certificate has expired", nil
	case s.phase == retiring && !now.Before(s.until):
		return &state{phase: steady, issuing: s.issuing}, "old root dropped; rotation complete", nil
	case s.phase == steady && !now.Before(worn(s.issuing.root)):
		next, err := s.introduce(cfg, now)
		return next, "root is near its end: new root published", err
	case s.issuing.renewable() && !now.Before(worn(s.issuing.cert)):
		g := *s.issuing
		var err error
		if g.cert, g.key, err = mintIntermediate(cfg.TrustDomain, g.root, g.rootKey, now, cfg.IntermediateLife); err != nil {
			return s, "", err
		}
		next := *s
		next.issuing = &g
		return &next, "issuing certificate renewed", nil
	}
	return s, "", nil
}

// introduce starts a rotation.
func (s *state) introduce(cfg *Config, now time.Time) (*state, error) {
	g, err := mintGeneration(cfg, now)
	if err != nil {
		return nil, err
	}
	return &state{phase: introducing, until: now.Add(cfg.RotationOverlap), issuing: s.issuing, other: g}, nil
}
