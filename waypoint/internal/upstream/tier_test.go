package upstream

import (
	"bytes"
	"strings"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
)

// near splits the endpoints of a snapshot into two tiers.
func near(s *snapshot, n int) (first, second []*Endpoint) {
	algorithm := s.policy.GetLoadBalancing().GetAlgorithm()
	first, second = s.endpoints[:n], s.endpoints[n:]
	s.tiers = []*tier{newTier(first, algorithm), newTier(second, algorithm)}
	return first, second
}

func share(s *snapshot, hashed bool, slow time.Duration) map[*Endpoint]int {
	got := map[*Endpoint]int{}
	for i := range uint64(1000) {
		got[s.choose(i, hashed, slow, nil)]++
	}
	return got
}

// The nearest endpoints get everything until none of them is well.
func TestTiersFailOver(t *testing.T) {
	for a := range waypoint.LoadBalancing_Algorithm_name {
		algorithm := waypoint.LoadBalancing_Algorithm(a)
		t.Run(algorithm.String(), func(t *testing.T) {
			s := snapshotOf(4, algorithm)
			first, second := near(s, 2)
			if got := share(s, true, 0); got[first[0]]+got[first[1]] != 1000 {
				t.Errorf("all well: %v", got)
			}
			first[0].health.unhealthy.Store(true)
			if got := share(s, true, 0); got[first[1]] != 1000 {
				t.Errorf("one of the near ones is well: %v", got)
			}
			first[1].health.unhealthy.Store(true)
			if got := share(s, true, 0); got[second[0]]+got[second[1]] != 1000 || got[second[0]] < 100 || got[second[1]] < 100 {
				t.Errorf("none of the near ones is well: %v", got)
			}
			second[0].health.unhealthy.Store(true)
			second[1].health.unhealthy.Store(true)
			if got := share(s, true, 0); got[first[0]]+got[first[1]] != 1000 {
				t.Errorf("nobody is well: %v", got)
			}
			if e := s.choose(0, true, 0, func(e *Endpoint) bool { return e != second[1] }); e != second[1] {
				t.Error("a retry did not go where it had not been")
			}
		})
	}
}

// A new endpoint takes a part of its turns.
func TestSlowStartOfTurns(t *testing.T) {
	for _, a := range []waypoint.LoadBalancing_Algorithm{waypoint.LoadBalancing_ALGORITHM_ROUND_ROBIN, waypoint.LoadBalancing_ALGORITHM_RANDOM} {
		t.Run(a.String(), func(t *testing.T) {
			s := snapshotOf(4, a)
			fresh := s.endpoints[3]
			fresh.born = time.Now()
			got := share(s, false, time.Hour)
			if n := got[fresh]; n < 1 || n > 100 {
				t.Errorf("the new one of four got %d of 1000", n)
			}
			for _, e := range s.endpoints[:3] {
				if n := got[e]; n < 250 || n > 390 {
					t.Errorf("one of the three others got %d of 1000", n)
				}
			}
			fresh.born = time.Now().Add(-time.Hour)
			if n := share(s, false, time.Hour)[fresh]; n < 180 {
				t.Errorf("after its start it got %d of 1000", n)
			}
			// Where all are new somebody has to take the turn.
			for _, e := range s.endpoints {
				e.born = time.Now()
			}
			if got := share(s, false, time.Hour); got[nil] > 0 {
				t.Errorf("all are new: %d had none", got[nil])
			}
		})
	}
}

// The name of a gRPC service may be as long as a policy can have it.
func TestHealthRequest(t *testing.T) {
	for _, name := range []string{"", "a.Service", strings.Repeat("a", 253)} {
		b := grpcHealthRequest(name)
		want := []byte(nil)
		if name != "" {
			want = protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), name)
		}
		if len(b) < 5 || b[0] != 0 || int(b[1])<<24|int(b[2])<<16|int(b[3])<<8|int(b[4]) != len(want) || !bytes.Equal(b[5:], want) {
			t.Errorf("%d bytes of name: %x", len(name), b)
		}
	}
}

// Whatever an endpoint answers, only a whole message that says SERVING counts.
func FuzzHealthAnswer(f *testing.F) {
	for _, b := range []string{"\x00\x00\x00\x00\x04\x08\x01\x08\x02", "\x00\x00\x00\x00\x02\x08\x01", "\x00\x00\x00\x00\x02\x08\x02", "\x00\x00\x00\x00\x00", "\x01\x00\x00\x00\x02\x08\x01", "\x00\x00\x00\x00\x05\x12\x01x\x08\x01", "", "\x00\x00\x00\x00\x01\x08"} {
		f.Add(200, []byte(b))
	}
	f.Fuzz(func(t *testing.T, status int, b []byte) {
		err := grpcHealthy(&message.Response{Status: status, Body: message.BytesBody(b)})
		if err != nil {
			return
		}
		var m healthpb.HealthCheckResponse
		if status != 200 || len(b) < 5 || b[0] != 0 || proto.Unmarshal(b[5:], &m) != nil || m.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("status %d with %q is taken for SERVING", status, b)
		}
	})
}
