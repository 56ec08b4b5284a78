package waypoint

import (
	"errors"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	waypointpb "github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/wds"
	"github.com/ambit-mesh/ambit/internal/xdsclient"
	"github.com/ambit-mesh/ambit/waypoint/internal/frontend"
	"github.com/ambit-mesh/ambit/waypoint/internal/upstream"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

func newResources() *resources {
	return &resources{frontends: frontend.New(nil, nil), upstream: upstream.NewSet(upstream.Config{Store: wds.New()}), limits: make(map[string][]*route.RateLimit)}
}

func update(t *testing.T, byName map[string]proto.Message) xdsclient.Update {
	t.Helper()
	var u xdsclient.Update
	for name, m := range byName {
		body, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		u.Resources = append(u.Resources, &discoveryv3.Resource{Name: name, Resource: body})
	}
	return u
}

// names asks that the refusal is about that resource alone and says words.
func names(t *testing.T, err error, resource string, words ...string) {
	t.Helper()
	var rejected *xdsclient.Rejected
	if !errors.As(err, &rejected) || len(rejected.Errors) != 1 || rejected.Errors[resource] == nil {
		t.Fatalf("want a refusal of %s alone, have %v", resource, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the refusal does not speak of %q: %v", w, err)
		}
	}
}

func frontendOf(host, regex string) *waypointpb.Frontend {
	return &waypointpb.Frontend{
		Namespace: "shop", Hostname: host,
		Ports: []*waypointpb.Port{{
			Number: 80, Kind: waypointpb.RouteKind_ROUTE_KIND_HTTP,
			Producer: &waypointpb.RouteTable{Routes: []*waypointpb.Route{{Kind: "HTTPRoute", Namespace: "shop", Name: "broken", Rules: []*waypointpb.Rule{{
				Matches: []*waypointpb.Match{{Path: &waypointpb.PathMatch{Type: &waypointpb.PathMatch_Regex{Regex: regex}}}},
			}}}}},
		}},
	}
}

// A frontend that cannot be carried out is refused by its name, and its last good
// state stays; others of the same update are taken.
func TestBrokenFrontend(t *testing.T) {
	r := newResources()
	if err := r.onFrontends(update(t, map[string]proto.Message{"shop/web": frontendOf("web", "/good.*")})); err != nil {
		t.Fatal(err)
	}
	err := r.onFrontends(update(t, map[string]proto.Message{"shop/web": frontendOf("web", "/bad["), "shop/cart": frontendOf("cart", "/new.*")}))
	names(t, err, "shop/web", "shop/broken", "/bad[")
	got := r.frontends.Key("shop/web")
	if got == nil || !proto.Equal(got.Config, frontendOf("web", "/good.*")) {
		t.Errorf("in use is %v", got)
	}
	if r.frontends.Key("shop/cart") == nil {
		t.Error("the good one of the update was not taken")
	}
	if err := r.onFrontends(update(t, map[string]proto.Message{"shop/web": frontendOf("web", "/better.*")})); err != nil {
		t.Error(err)
	}
	if got := r.frontends.Key("shop/web").Config; !proto.Equal(got, frontendOf("web", "/better.*")) {
		t.Errorf("after it was put right: %v", got)
	}
	err = r.onFrontends(xdsclient.Update{Resources: []*discoveryv3.Resource{{Name: "shop/web", Resource: &anypb.Any{TypeUrl: typeFrontend, Value: []byte{0xff}}}}})
	names(t, err, "shop/web")
	if got := r.frontends.Key("shop/web").Config; !proto.Equal(got, frontendOf("web", "/better.*")) {
		t.Errorf("after one that cannot be read: %v", got)
	}
}

func backendOf(requests uint32, unit time.Duration) *waypointpb.Backend {
	return &waypointpb.Backend{
		Namespace: "shop", Hostname: "web", CircuitBreaker: &waypointpb.CircuitBreaker{MaxRequests: requests},
		RateLimits: []*waypointpb.RateLimit{{Policy: "shop/limit", Rule: "0", Requests: requests, Unit: durationpb.New(unit)}},
	}
}

// So it is with backends; one that was never good keeps requests out.
func TestBrokenBackend(t *testing.T) {
	r := newResources()
	names(t, r.onBackends(update(t, map[string]proto.Message{"shop/web": backendOf(1, 0)})), "shop/web", "unit")
	if l := r.limitsOf("shop/web"); len(l) != 1 || l[0].Invalid == "" {
		t.Errorf("a first state that is broken: %v", l)
	}
	if err := r.onBackends(update(t, map[string]proto.Message{"shop/web": backendOf(2, time.Second)})); err != nil {
		t.Fatal(err)
	}
	names(t, r.onBackends(update(t, map[string]proto.Message{"shop/web": backendOf(3, -time.Second)})), "shop/web", "shop/limit")
	if l := r.limitsOf("shop/web"); len(l) != 1 || l[0].Requests != 2 || l[0].Invalid != "" {
		t.Errorf("limits in use: %+v", l)
	}
	if n := r.upstream.PolicyOf("shop/web").GetCircuitBreaker().GetMaxRequests(); n != 2 {
		t.Errorf("bound in use: %d", n)
	}
	if err := r.onBackends(xdsclient.Update{Removed: []string{"shop/web"}}); err != nil || len(r.limitsOf("shop/web")) != 0 {
		t.Errorf("removed: %v, %v", err, r.limitsOf("shop/web"))
	}
}
