package ratelimit

import (
	"strconv"
	"strings"
	"testing"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rlspb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/internal/guard"
)

func itoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// Whatever a rate limit service answers: it lets through only by saying OK and
// nothing against it, and what it adds is well-formed.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(encode(f, &rlspb.RateLimitResponse{
		OverallCode:          rlspb.RateLimitResponse_OVER_LIMIT,
		Statuses:             []*rlspb.RateLimitResponse_DescriptorStatus{{Code: rlspb.RateLimitResponse_OVER_LIMIT, DurationUntilReset: durationpb.New(1)}},
		ResponseHeadersToAdd: []*corepb.HeaderValue{{Key: "a", Value: "b\r\nc"}},
	}))
	f.Add(encode(f, &rlspb.RateLimitResponse{
		OverallCode:         rlspb.RateLimitResponse_OK,
		Statuses:            []*rlspb.RateLimitResponse_DescriptorStatus{{Code: rlspb.RateLimitResponse_OK, LimitRemaining: 1 << 31, CurrentLimit: &rlspb.RateLimitResponse_RateLimit{RequestsPerUnit: 1 << 31, Unit: 6}}},
		RequestHeadersToAdd: []*corepb.HeaderValue{{Key: ":path", Value: "/"}},
	}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		asks := []*Ask{{Limit: Limit{Policy: "p", Rule: "a"}}, {Limit: Limit{Policy: "p", Rule: "b"}}}
		a, err := parse(raw, asks, func(guard.Fault) {})
		if err != nil {
			return
		}
		pb := &rlspb.RateLimitResponse{}
		if err := proto.Unmarshal(raw, pb); err != nil {
			t.Fatal("read what is no message")
		}
		over := pb.GetOverallCode() != rlspb.RateLimitResponse_OK
		for _, s := range pb.GetStatuses() {
			over = over || s.GetCode() == rlspb.RateLimitResponse_OVER_LIMIT
		}
		if a.ok == over {
			t.Fatalf("let through: %v; over: %v", a.ok, over)
		}
		var fields message.Fields
		Headers(&fields, a.verdicts)
		if fields.Has("retry-after") == a.ok {
			t.Fatalf("let through: %v; %v", a.ok, fields)
		}
		for _, l := range append(append(fields, a.request...), a.response...) {
			if strings.ContainsAny(l.Name+l.Value, "\r\n\x00") || strings.HasPrefix(l.Name, ":") {
				t.Fatalf("%q: %q", l.Name, l.Value)
			}
		}
	})
}
