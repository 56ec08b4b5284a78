package ratelimit

import (
	"errors"
	"fmt"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rlspb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/internal/guard"
)

// Limits of what a rate limit service may answer.
const (
	maxAnswer = 256 << 10
	maxBody   = 64 << 10
)

// answer is what a rate limit service has said.
type answer struct {
	ok bool
	// verdicts, one for each limit that was asked for.
	verdicts          []Verdict
	request, response message.Fields
	body              []byte
}

var errUndecided = errors.New("the answer says neither OK nor OVER_LIMIT")

// parse reads an answer. It says OK only if the whole answer does: an answer that
// is over one limit is over the limit, whatever it says overall.
func parse(raw []byte, asks []*Ask, ignored func(guard.Fault)) (*answer, error) {
	if len(raw) > maxAnswer {
		return nil, fmt.Errorf("the answer has %d bytes, more than %d", len(raw), maxAnswer)
	}
	pb := &rlspb.RateLimitResponse{}
	if err := proto.Unmarshal(raw, pb); err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	a := &answer{verdicts: make([]Verdict, len(asks))}
	switch pb.GetOverallCode() {
	case rlspb.RateLimitResponse_OK:
		a.ok = true
	case rlspb.RateLimitResponse_OVER_LIMIT:
	default:
		return nil, errUndecided
	}
	named := false
	for i, ask := range asks {
		v := &a.verdicts[i]
		*v = Verdict{Policy: ask.Limit.Policy, Rule: ask.Limit.Rule, OK: true}
		if i < len(pb.GetStatuses()) {
			v.read(pb.GetStatuses()[i])
		}
		named = named || !v.OK
	}
	for _, extra := range pb.GetStatuses()[min(len(asks), len(pb.GetStatuses())):] {
		a.ok = a.ok && extra.GetCode() != rlspb.RateLimitResponse_OVER_LIMIT
	}
	a.ok = a.ok && !named
	if !a.ok && !named {
		// Over a limit that is not named: the first has to stand for it.
		a.verdicts[0].OK, a.verdicts[0].Remaining = false, 0
	}
	a.request = fields(pb.GetRequestHeadersToAdd(), ignored)
	a.response = fields(pb.GetResponseHeadersToAdd(), ignored)
	if len(pb.GetRawBody()) <= maxBody {
		a.body = pb.GetRawBody()
	}
	return a, nil
}

// read takes over what the service says of one limit.
func (v *Verdict) read(s *rlspb.RateLimitResponse_DescriptorStatus) {
	v.OK = s.GetCode() != rlspb.RateLimitResponse_OVER_LIMIT
	if l := s.GetCurrentLimit(); l != nil {
		v.Limit, v.Window = uint64(l.GetRequestsPerUnit()), unitOf(l)
	}
	v.Remaining = uint64(s.GetLimitRemaining())
	v.Reset = duration(s.GetDurationUntilReset())
	if !v.OK {
		v.Remaining, v.RetryAfter = 0, v.Reset
	}
}

// duration reads one that may be nonsense.
func duration(d *durationpb.Duration) time.Duration {
	if d == nil || d.GetSeconds() < 0 || d.GetNanos() < 0 {
		return 0
	}
	return min(d.AsDuration(), maxWindow)
}

func fields(in []*corepb.HeaderValue, ignored func(guard.Fault)) message.Fields {
	var out message.Fields
	for i, h := range in {
		if i == guard.MaxFields {
			ignored(guard.TooLarge)
			break
		}
		value := h.GetValue()
		if len(h.GetRawValue()) > 0 {
			value = string(h.GetRawValue())
		}
		f, fault := guard.Field(h.GetKey(), value)
		if fault != guard.Fine {
			ignored(fault)
			continue
		}
		out = append(out, f)
	}
	return out
}
