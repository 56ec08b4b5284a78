package revocation

import (
	"crypto/x509"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// RevokedError is a chain with a certificate that its authority has revoked.
type RevokedError struct{ Certificate *x509.Certificate }

// Error names the certificate.
func (e *RevokedError) Error() string {
	return fmt.Sprintf("certificate %s of %s is revoked", e.Certificate.SerialNumber.Text(16), e.Certificate.Issuer)
}

// Checker holds the lists that are in force. Its methods may be called from any
// goroutine.
type Checker struct {
	log   *zap.Logger
	lists atomic.Pointer[[]*list]

	refused, closed prometheus.Counter

	mu      sync.Mutex
	conns   map[*conn]struct{} // guarded by mu
	overdue *time.Timer        // guarded by mu; nil before the first list
}

// conn is a connection that lasts.
type conn struct {
	chain []*x509.Certificate
	cut   func(error)
}

// New makes a checker without lists, which finds nothing revoked.
func New(r prometheus.Registerer, log *zap.Logger) *Checker {
	c := &Checker{
		log: log, conns: make(map[*conn]struct{}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ambit_revoked_handshakes_total",
			Help: "Handshakes that were refused because the peer's certificate, or one above it, is revoked.",
		}),
		closed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ambit_revoked_connections_total",
			Help: "Tunnel connections that were cut because the peer's certificate, or one above it, was revoked meanwhile.",
		}),
	}
	c.lists.Store(&[]*list{})
	next := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ambit_revocation_list_soonest_expiry_seconds",
		Help: "When the first of the revocation lists should have been followed by another, in seconds since the epoch; 0 without any. One that is overdue stays in force.",
	}, func() float64 {
		if at := c.soonest(); !at.IsZero() {
			return float64(at.Unix())
		}
		return 0
	})
	certificates := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ambit_revoked_certificates",
		Help: "Certificates on the revocation lists that are in force.",
	}, func() float64 {
		n := 0
		for _, l := range *c.lists.Load() {
			n += len(l.serials)
		}
		return float64(n)
	})
	r.MustRegister(c.refused, c.closed, next, certificates)
	return c
}

func (c *Checker) soonest() (at time.Time) {
	for _, l := range *c.lists.Load() {
		if at.IsZero() || l.next.Before(at) {
			at = l.next
		}
	}
	return at
}

// Set puts lists, DER, in force in place of the former ones, and cuts what is connected
// with a certificate that is on them. If one cannot be read all stays as it was. Who
// signed them is for whoever they come from to have seen to.
func (c *Checker) Set(ders [][]byte) error {
	next := make([]*list, 0, len(ders))
	for _, der := range ders {
		l, err := parse(der)
		if err != nil {
			return err
		}
		next = append(next, newList(l))
	}
	c.lists.Store(&next)
	c.mu.Lock()
	c.watchExpiryLocked()
	cut := make(map[*conn]error)
	for w := range c.conns {
		if err := c.revoked(w.chain); err != nil {
			cut[w] = err
			delete(c.conns, w)
		}
	}
	c.mu.Unlock()
	for w, err := range cut {
		c.cut(w, err)
	}
	return nil
}

// watchExpiryLocked has the log say when a list is overdue.
func (c *Checker) watchExpiryLocked() {
	if c.overdue != nil {
		c.overdue.Stop()
		c.overdue = nil
	}
	at := c.soonest()
	if at.IsZero() {
		return
	}
	c.overdue = time.AfterFunc(max(0, time.Until(at)), func() {
		c.log.Error("a revocation list is overdue and stays in force: certificates revoked since are not known; see that the authority's newest list gets to the control plane", zap.Time("nextUpdate", at))
	})
}

// Check says whether a certificate of a chain that was verified is revoked.
func (c *Checker) Check(chain []*x509.Certificate) error {
	err := c.revoked(chain)
	if err != nil {
		c.refused.Inc()
	}
	return err
}

func (c *Checker) revoked(chain []*x509.Certificate) error {
	for _, l := range *c.lists.Load() {
		for _, cert := range chain {
			if string(cert.RawIssuer) != l.issuer {
				continue
			}
			if _, on := l.serials[key(cert.SerialNumber)]; on {
				return &RevokedError{cert}
			}
		}
	}
	return nil
}

// Watch has a connection cut when a certificate of its peer's chain is revoked, at once
// if it has been. The function that it gives ends that.
func (c *Checker) Watch(chain []*x509.Certificate, cut func(error)) (release func()) {
	w := &conn{chain, cut}
	c.mu.Lock()
	err := c.revoked(chain)
	if err == nil {
		c.conns[w] = struct{}{}
	}
	c.mu.Unlock()
	if err != nil {
		c.cut(w, err)
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.conns, w)
	}
}

func (c *Checker) cut(w *conn, err error) {
	c.closed.Inc()
	c.log.Warn("tunnel connection cut", zap.Error(err))
	w.cut(err)
}

// Close ends what New and Set have begun.
func (c *Checker) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.overdue != nil {
		c.overdue.Stop()
	}
}
