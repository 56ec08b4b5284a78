package upstream

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// snapshotOf makes a snapshot of n endpoints.
func snapshotOf(n int, algorithm waypoint.LoadBalancing_Algorithm) *snapshot {
	c := &Cluster{set: NewSet(Config{Store: wds.New()})}
	policy := &waypoint.Backend{LoadBalancing: &waypoint.LoadBalancing{Algorithm: algorithm}}
	c.policy.Store(policy)
	s := &snapshot{policy: policy}
	for i := range n {
		w := &wds.Workload{UID: fmt.Sprintf("uid-%d", i), Capacity: 1, Healthy: true}
		s.endpoints = append(s.endpoints, newEndpoint(c, endpointKey{w.UID, 80}, wds.Endpoint{Workload: w, Port: 80}, time.Time{}))
	}
	s.tiers = []*tier{newTier(s.endpoints, algorithm)}
	c.snapshot.Store(s)
	return s
}

func TestLessLoadedAndFasterIsPreferred(t *testing.T) {
	s := snapshotOf(2, 0)
	slow, fast := s.endpoints[0], s.endpoints[1]
	now := time.Now()
	slow.latency.observe(100*time.Millisecond, now)
	fast.latency.observe(time.Millisecond, now)
	got := map[*Endpoint]int{}
	for range 1000 {
		got[s.choose(0, false, 0, nil)]++
	}
	// Of two draws both are the slow one a quarter of the time.
	if got[slow] > 330 || got[slow] < 170 {
		t.Errorf("the slow endpoint got %d of 1000", got[slow])
	}
	fast.inflight.Store(1000)
	if e := s.choose(0, false, 0, func(*Endpoint) bool { return false }); e == nil {
		t.Error("nothing was chosen")
	}
	if c1, c2 := slow.cost(0, now), fast.cost(0, now); c1 > c2 {
		t.Errorf("an idle slow endpoint costs %v, a busy fast one %v", c1, c2)
	}
}

func TestRoundRobinTakesTurns(t *testing.T) {
	s := snapshotOf(3, waypoint.LoadBalancing_ALGORITHM_ROUND_ROBIN)
	got := map[*Endpoint]int{}
	for range 300 {
		got[s.choose(0, false, 0, nil)]++
	}
	for _, e := range s.endpoints {
		if got[e] != 100 {
			t.Errorf("%s got %d of 300", e.key.uid, got[e])
		}
	}
}

// A hash leads to one endpoint, hashes are spread, and when an endpoint leaves the
// others keep theirs.
func TestHashesStay(t *testing.T) {
	const n, keys = 10, 5000
	for _, a := range []waypoint.LoadBalancing_Algorithm{waypoint.LoadBalancing_ALGORITHM_RING_HASH, waypoint.LoadBalancing_ALGORITHM_MAGLEV} {
		t.Run(a.String(), func(t *testing.T) {
			s := snapshotOf(n, a)
			before := map[int]*Endpoint{}
			got := map[*Endpoint]int{}
			for k := range keys {
				before[k] = s.choose(HashString(fmt.Sprint(k)), true, 0, nil)
				got[before[k]]++
			}
			for _, e := range s.endpoints {
				if got[e] < keys/n/2 || got[e] > keys/n*2 {
					t.Errorf("%s got %d of %d", e.key.uid, got[e], keys)
				}
			}
			gone := s.endpoints[3]
			gone.health.unhealthy.Store(true)
			moved := 0
			for k := range keys {
				e := s.choose(HashString(fmt.Sprint(k)), true, 0, nil)
				switch {
				case e == gone:
					t.Fatal("an endpoint that is out was chosen")
				case before[k] != gone && e != before[k]:
					moved++
				}
			}
			if moved > 0 {
				t.Errorf("%d of %d keys moved though their endpoint stayed", moved, keys)
			}
		})
	}
}

func TestSlowStart(t *testing.T) {
	s := snapshotOf(2, 0)
	now := time.Now()
	old, fresh := s.endpoints[0], s.endpoints[1]
	for _, e := range s.endpoints {
		e.latency.observe(time.Millisecond, now)
		e.inflight.Store(5)
	}
	fresh.born = now
	if a, b := old.cost(time.Minute, now), fresh.cost(time.Minute, now); b < 5*a {
		t.Errorf("a new endpoint costs %v, an old one %v", b, a)
	}
	if a, b := old.cost(time.Minute, now.Add(time.Hour)), fresh.cost(time.Minute, now.Add(time.Hour)); a != b {
		t.Errorf("after the start: %v and %v", a, b)
	}
}

func TestEjection(t *testing.T) {
	s := snapshotOf(10, 0)
	c := s.endpoints[0].cluster
	c.policy.Store(&waypoint.Backend{OutlierDetection: &waypoint.OutlierDetection{
		ConsecutiveFailures: 3, BaseEjection: durationpb.New(time.Minute), MaxEjection: durationpb.New(3 * time.Minute), MaxEjected: 20,
	}})
	now := time.Now()
	fail := func(e *Endpoint, n int) {
		for range n {
			c.outlier(e, true, now)
		}
	}
	bad := s.endpoints[0]
	fail(bad, 2)
	c.outlier(bad, false, now)
	fail(bad, 2)
	if bad.health.out(now) {
		t.Error("ejected though it has answered in between")
	}
	fail(bad, 1)
	if !bad.health.out(now) || bad.health.out(now.Add(61*time.Second)) {
		t.Error("want it ejected for a minute")
	}
	fail(s.endpoints[1], 3)
	fail(s.endpoints[2], 3)
	if !s.endpoints[1].health.out(now) || s.endpoints[2].health.out(now) {
		t.Error("want two of ten ejected and no more")
	}
	now = now.Add(2 * time.Minute)
	fail(bad, 3)
	if !bad.health.out(now.Add(119 * time.Second)) {
		t.Error("want the second ejection to take two minutes")
	}
}

// Of endpoints that are all out any is better than none.
func TestAllOut(t *testing.T) {
	s := snapshotOf(3, 0)
	for _, e := range s.endpoints {
		e.health.unhealthy.Store(true)
	}
	if s.choose(0, false, 0, nil) == nil {
		t.Error("nothing was chosen")
	}
}

func TestRetryBudget(t *testing.T) {
	var b budget
	p := &waypoint.RetryBudget{Percent: 20, Interval: durationpb.New(10 * time.Second), MinCount: 2, MinInterval: durationpb.New(time.Second)}
	now := time.Unix(1000, 0)
	for range 100 {
		b.request(now)
	}
	allowed := 0
	for range 100 {
		if b.retry(p, now) {
			allowed++
		}
	}
	if allowed != 22 {
		t.Errorf("%d retries of 100 requests, want 20 and the two that are always allowed", allowed)
	}
	now = now.Add(time.Minute)
	allowed = 0
	for range 10 {
		if b.retry(p, now) {
			allowed++
		}
	}
	if allowed != 2 {
		t.Errorf("%d retries without requests, want 2", allowed)
	}
}

func TestLimits(t *testing.T) {
	set := NewSet(Config{Store: wds.New()})
	c := set.Cluster("app/x", 80)
	set.SetPolicy("app/x", &waypoint.Backend{CircuitBreaker: &waypoint.CircuitBreaker{MaxRequests: 2, MaxRetries: 1}})
	var leave []func()
	for range 2 {
		l, err := c.Enter()
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, l)
	}
	if _, err := c.Enter(); err == nil {
		t.Error("a third request was let in")
	}
	leave[0]()
	if _, err := c.Enter(); err != nil {
		t.Errorf("after one has left: %v", err)
	}
	if _, err := c.MayRetry(); err != nil {
		t.Error(err)
	}
	if _, err := c.MayRetry(); err == nil {
		t.Error("a second retry was let in")
	}
}
