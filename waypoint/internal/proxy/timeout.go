package proxy

import (
	"context"
	"errors"
	"time"

	"github.com/ambit-mesh/ambit/waypoint/internal/upstream"
)

// Timeouts as they are counted.
const (
	timeoutRequest = "request"
	timeoutBackend = "backend_request"
	timeoutTry     = "try"
	timeoutIdle    = "idle"
	timeoutConnect = "connect"
	timeoutCall    = "call" // of a service that helps us decide
)

// timeoutError is something that took too long.
type timeoutError struct {
	name  string
	what  string
	limit time.Duration
}

// errTimeout is what every timeoutError is.
var errTimeout = errors.New("timeout")

// Error names what took too long.
func (e timeoutError) Error() string { return e.what + " took longer than " + e.limit.String() }

// Is makes it an errTimeout.
func (e timeoutError) Is(target error) bool { return target == errTimeout }

// timedOut counts a request or connection that a timeout has ended, which err says.
func (d *downstream) timedOut(err error) {
	var t timeoutError
	var connect *upstream.ConnectError
	switch {
	case errors.As(err, &connect) && errors.Is(err, context.DeadlineExceeded):
		t.name = timeoutConnect
	case !errors.As(err, &t):
		return
	}
	d.proxy.cfg.Metrics.timeouts.WithLabelValues(d.key, t.name).Inc()
}
