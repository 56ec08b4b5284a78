package route_test

import (
	"fmt"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/route"
)

// A waypoint asks for the rule of each request, and people ask why.
func Example() {
	canary := &waypoint.Rule{
		Name: "canary",
		Matches: []*waypoint.Match{{
			Path:    &waypoint.PathMatch{Type: &waypoint.PathMatch_Prefix{Prefix: "/cart"}},
			Headers: []*waypoint.ValueMatch{{Name: "x-version", Type: &waypoint.ValueMatch_Exact{Exact: "v2"}}},
		}},
		Backends: []*waypoint.WeightedBackend{
			{Weight: 9, Backend: &waypoint.BackendRef{Service: "shop/cart-v1.shop.svc.cluster.local", Port: 80}},
			{Weight: 1, Backend: &waypoint.BackendRef{Service: "shop/cart-v2.shop.svc.cluster.local", Port: 80}},
		},
	}
	f, problems := route.Compile(&waypoint.Frontend{Namespace: "shop", Name: "cart", Ports: []*waypoint.Port{{
		Number: 80, Kind: waypoint.RouteKind_ROUTE_KIND_HTTP,
		Producer: &waypoint.RouteTable{Routes: []*waypoint.Route{{Kind: "HTTPRoute", Namespace: "shop", Name: "cart", Rules: []*waypoint.Rule{canary}}}},
	}}})
	for _, p := range problems {
		fmt.Println(p)
	}
	path, err := route.NormalizePath("/cart/./7?currency=EUR")
	if err != nil {
		fmt.Println(err)
		return
	}
	web := route.Client{Identity: identity.ID{TrustDomain: "cluster.local", Namespace: "web", ServiceAccount: "shop-front"}}
	req := &message.Request{Method: "GET", Authority: "cart", Path: path, Fields: message.Fields{{Name: "x-version", Value: "v2"}}}

	decision := f.Match(web, 80, req)
	backend, _ := decision.Rule.PickBackend(1 << 63)
	fmt.Println(decision.Outcome, decision.Rule.ID(), "to", backend.Service)
	fmt.Print(f.Explain(web, 80, req))
	// Output:
	// matched HTTPRoute/shop/cart/canary to shop/cart-v1.shop.svc.cluster.local
	// GET /cart/7?currency=EUR to shop/cart port 80
	//   result      routed
	//   routes      producer: the client's namespace "web" has no routes of its own for this service
	//   rule        HTTPRoute shop/cart rule 0 (canary) match 0
	//   matched by  path below /cart, header x-version = v2
	//   backends     90.00%  shop/cart-v1.shop.svc.cluster.local:80  weight 9
	//                10.00%  shop/cart-v2.shop.svc.cluster.local:80  weight 1
}
