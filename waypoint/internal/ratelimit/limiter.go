package ratelimit

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
)

// Caller makes unary gRPC calls through the waypoint's upstreams. request and the
// answer are messages without the gRPC prefix; a status other than OK is an error.
type Caller interface {
	Unary(ctx context.Context, backend *waypoint.BackendRef, method string, request []byte, timeout time.Duration) ([]byte, error)
}

// Config of a Limiter.
type Config struct {
	// Caller asks rate limit services; without one, global limits cannot be asked.
	Caller Caller
	// MaxKeys, MaxKeysPerLimit and Start: see LocalConfig.
	MaxKeys, MaxKeysPerLimit int
	Start                    time.Time
	// Registerer may be nil.
	Registerer prometheus.Registerer
}

// Limiter keeps the limits of requests.
type Limiter struct {
	local   *Local
	caller  Caller
	metrics *Metrics
}

// New makes a Limiter. Run has to be called next.
func New(cfg Config) *Limiter {
	m := NewMetrics(cfg.Registerer)
	return &Limiter{
		local:  NewLocal(LocalConfig{MaxKeys: cfg.MaxKeys, MaxKeysPerLimit: cfg.MaxKeysPerLimit, Start: cfg.Start, Metrics: m}),
		caller: cfg.Caller, metrics: m,
	}
}

// Run forgets buckets that nobody uses until ctx ends.
func (l *Limiter) Run(ctx context.Context) error { return l.local.Run(ctx) }

// Outcome is what the limits of a request say together.
type Outcome struct {
	OK bool
	// Status of a refusal: 429 over a limit, 503 when a service that counts could
	// not be asked.
	Status int
	// Policy and Rule that refused; Reason is for people and names both.
	Policy, Rule string
	Reason       string
	// Verdicts of the limits that have one.
	Verdicts []Verdict
	// RequestFields are to be appended to the request that goes on.
	RequestFields message.Fields
	// ResponseFields are written by Headers.
	ResponseFields message.Fields
	// Body of a refusal, if a rate limit service has given one.
	Body []byte
}

// Headers appends to the response what the limits say and what rate limit services
// want to be said.
func (o *Outcome) Headers(f *message.Fields) {
	Headers(f, o.Verdicts)
	for _, l := range o.ResponseFields {
		// A field that may be there once (RFC 9110 section 5.3) stays ours.
		if l.Name != "retry-after" || !f.Has(l.Name) {
			f.Add(l.Name, l.Value)
		}
	}
}

// Check asks the limits of a request. buf is storage for Outcome.Verdicts and may
// be nil. now is compared with the now of other calls.
func (l *Limiter) Check(ctx context.Context, asks []Ask, now time.Time, buf []Verdict) Outcome {
	out := Outcome{OK: true}
	out.Verdicts, out.OK = l.local.AllowAll(asks, now, buf[:0])
	if !out.OK {
		out.refuse(tightest(out.Verdicts))
		return out
	}
	if !l.checkGlobal(ctx, asks, &out) {
		l.local.Return(asks)
		l.correct(asks, &out)
	}
	return out
}

// correct makes verdicts of local limits say that their token was given back.
func (l *Limiter) correct(asks []Ask, out *Outcome) {
	n := 0
	for i := range asks {
		if asks[i].Global != nil {
			continue
		}
		v := &out.Verdicts[n]
		v.Remaining++
		v.Reset = max(v.Reset-time.Duration(rateOf(&asks[i].Limit).step), 0)
		n++
	}
}

func (o *Outcome) refuse(v *Verdict) {
	o.OK, o.Status = false, http.StatusTooManyRequests
	o.Policy, o.Rule = v.Policy, v.Rule
	if v.Window <= 0 {
		o.Reason = fmt.Sprintf("over the rate limit %s", limitName(v.Policy, v.Rule))
		return
	}
	o.Reason = fmt.Sprintf("over the rate limit %s of %d requests in %v", limitName(v.Policy, v.Rule), v.Limit, v.Window)
}
