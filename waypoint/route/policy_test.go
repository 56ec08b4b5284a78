package route_test

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

func faulty(faults ...*waypoint.Fault) *waypoint.Rule {
	return &waypoint.Rule{Backends: split(backend("shop/a", 1)).Backends, Faults: faults}
}

// Faults strike whom they are for, in the shares that they say.
func TestFaults(t *testing.T) {
	r, problems := compileRule(t, faulty(&waypoint.Fault{
		Policy: "shop/chaos", Rule: "slow", Sources: []*waypoint.Source{{Namespace: "a"}, {Namespace: "b", ServiceAccount: "sa"}},
		Matches: []*waypoint.Match{onPrefix(&waypoint.Match{}, "/pay")}, Backends: []string{"shop/v2"},
		Delay: &waypoint.Delay{Duration: durationpb.New(time.Second), Share: 1_000_000},
		Abort: &waypoint.Abort{Share: 250_000, HttpStatus: 503, GrpcCode: "aborted"},
	}))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	req := get("/pay/now")
	aborts := 0
	for range 10_000 {
		d := r.Fault(client("b"), req, "shop/v2", rand.Uint64())
		if d.Delay != time.Second || d.DelayedBy != "shop/chaos/slow" {
			t.Fatalf("%+v", d)
		}
		if d.AbortedBy != "" {
			aborts++
			if d.Status != 503 || d.Code != route.Aborted {
				t.Fatalf("%+v", d)
			}
		}
	}
	if aborts < 2300 || aborts > 2700 {
		t.Errorf("%d of 10000 were aborted, want a quarter", aborts)
	}
	for name, d := range map[string]route.FaultDecision{
		"client":   r.Fault(client("c"), req, "shop/v2", 0),
		"identity": r.Fault(route.Client{}, req, "shop/v2", 0),
		"backend":  r.Fault(client("a"), req, "shop/v1", 0),
		"path":     r.Fault(client("a"), get("/pays"), "shop/v2", 0),
	} {
		if d != (route.FaultDecision{}) {
			t.Errorf("another %s: %+v", name, d)
		}
	}
}

func TestMirrorShare(t *testing.T) {
	m := filterOf(t, &waypoint.Filter{Type: &waypoint.Filter_Mirror{Mirror: &waypoint.Mirror{Backend: &waypoint.BackendRef{Service: "shop/m", Port: 80}, Numerator: 1, Denominator: 8}}}).Mirror
	hits := 0
	for range 8000 {
		if m.Hit(rand.Uint64()) {
			hits++
		}
	}
	if hits < 850 || hits > 1150 {
		t.Errorf("%d of 8000", hits)
	}
	// A mirror that does not exist is dropped, and the request is not.
	m = filterOf(t, &waypoint.Filter{Type: &waypoint.Filter_Mirror{Mirror: &waypoint.Mirror{Backend: &waypoint.BackendRef{Invalid: "not there"}, Numerator: 1, Denominator: 1}}}).Mirror
	if m.Hit(0) {
		t.Error("mirrored to nowhere")
	}
}

func TestRateLimits(t *testing.T) {
	key := func(k waypoint.RateLimitKey_Type, name string) *waypoint.RateLimitKey {
		return &waypoint.RateLimitKey{Type: k, Name: name}
	}
	limits, problems := route.CompileRateLimits("RateLimitPolicy shop/rl", []*waypoint.RateLimit{
		{Policy: "shop/rl", Rule: "all", Requests: 10, Unit: durationpb.New(time.Second)},
		{
			Policy: "shop/rl", Rule: "each", Requests: 5, Burst: 7, Unit: durationpb.New(time.Minute), Backends: []string{"shop/v2"},
			Key: []*waypoint.RateLimitKey{key(1, ""), key(2, ""), key(3, "X-User"), key(4, ""), key(5, "")},
		},
		{Policy: "shop/rl", Rule: "odd", Requests: 5, Unit: durationpb.New(time.Minute), Key: []*waypoint.RateLimitKey{key(9, "")}},
	})
	if len(problems) != 1 || !strings.Contains(problems[0].String(), "RateLimitPolicy shop/rl: rate_limits[2].key[0].type: 9 is not known") || limits[2].Invalid == "" {
		t.Fatal(problems)
	}
	c := client("b")
	c.Address = netip.MustParseAddr("::ffff:10.0.0.1")
	req := get("/pay?x=1", message.Field{Name: "x-user", Value: "u1"})
	for service, want := range map[string]int{"shop/v1": 2, "shop/v2": 3} {
		if got := route.SelectRateLimits(nil, limits, c, req, service); len(got) != want {
			t.Errorf("%s: %d limits", service, len(got))
		}
	}
	want := []route.Entry{
		{Key: "policy", Value: "shop/rl"},
		{Key: "rule", Value: "each"},
		{Key: "identity", Value: "td/ns/b/sa/sa"},
		{Key: "namespace", Value: "b"},
		{Key: "header:x-user", Value: "u1"},
		{Key: "path", Value: "/pay"},
		{Key: "address", Value: "10.0.0.1"},
	}
	if diff := cmp.Diff(want, limits[1].Entries(c, req)); diff != "" {
		t.Error(diff)
	}
	if limits[0].Burst != 10 || limits[1].Burst != 7 {
		t.Error("burst")
	}
	if a, b := limits[0].Key(c, req), limits[0].Key(route.Client{}, get("/")); a != b {
		t.Errorf("a limit without a key has two buckets, %q and %q", a, b)
	}
	// Values that run into each other when they are put together have keys of
	// their own, and long ones short keys.
	keys := map[string]bool{}
	for _, r := range []*message.Request{get("/a", fields("x-user", "b")...), get("/", fields("x-user", "b/a")...), get("/", fields("x-user", "")...), get("/" + strings.Repeat("a", 9000))} {
		k := limits[1].Key(c, r)
		if keys[k] && r.Path != "/" || len(k) > 400 {
			t.Errorf("%.200q", k)
		}
		keys[k] = true
	}
	if len(keys) < 4 {
		t.Error(keys)
	}
}
