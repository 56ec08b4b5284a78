package xds_test

import (
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/internal/xds"
)

const shopWaypoint, bankWaypoint = "n1 shop wp-1 wp", "n1 bank wp-1 wp"

// A waypoint is told of its own frontends, of all backends, and of what ztunnels
// are told of workloads and policies.
func TestWaypointSeesItsOwn(t *testing.T) {
	h := serve(t, xds.Config{})
	h.update(frontend("shop/web", "1", "shop", "wp"), frontend("bank/vault", "1", "bank", "wp"), frontend("shop/lost", "1", "", ""),
		backend("shop/web", "1"), backend("bank/vault", "1"), pod("a", "1", "10.0.0.1", "n2"), policy("app/allow", "1"))
	p := h.connect(shopWaypoint)
	p.send(wildcard(compile.TypeFrontend))
	p.expect("+[shop/web] -[]")
	p.send(wildcard(compile.TypeBackend))
	p.expect("+[bank/vault shop/web] -[]")
	p.send(wildcard(compile.TypeAddress))
	p.expect("+[a] -[]")
	p.send(wildcard(compile.TypeAuthorization))
	p.expect("+[app/allow] -[]")

	// A service that is bound to another waypoint leaves this one and comes there.
	other := h.connect(bankWaypoint)
	other.send(wildcard(compile.TypeFrontend))
	other.expect("+[bank/vault] -[]")
	h.update(frontend("shop/web", "1", "bank", "wp"))
	p.expect("+[] -[shop/web]")
	other.expect("+[shop/web] -[]")
	h.remove(compile.TypeFrontend, "bank/vault")
	other.expect("+[] -[bank/vault]")

	clients := h.Clients()
	if len(clients) != 2 || clients[1].Workload != "shop/wp-1" || clients[1].Waypoint != "shop/wp" {
		t.Errorf("clients %+v", clients)
	}
}

// What is another waypoint's does not exist, however it is asked for, and the
// attempt is logged.
func TestWaypointAsksForAnothersFrontend(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	h := serve(t, xds.Config{Log: zap.New(core)})
	h.update(frontend("shop/web", "1", "shop", "wp"), frontend("bank/vault", "1", "bank", "wp"))
	p := h.connect(shopWaypoint)
	p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: compile.TypeFrontend, ResourceNamesSubscribe: []string{"bank/vault", "shop/web"}})
	p.expect("+[shop/web] -[bank/vault]")
	if logs.Len() != 1 || logs.All()[0].ContextMap()["name"] != "bank/vault" || logs.All()[0].ContextMap()["workload"] != "shop/wp-1" {
		t.Errorf("log %+v", logs.All())
	}
	h.update(frontend("bank/vault", "2", "bank", "wp"), frontend("shop/web", "2", "shop", "wp"))
	p.expect("+[shop/web] -[]")
}

// Types that are for others end the stream, and the attempt is logged.
func TestForeignTypesAreRefused(t *testing.T) {
	for name, tc := range map[string]struct{ caller, typeURL string }{
		"waypoint asks for captures":   {shopWaypoint, compile.TypePod},
		"waypoint asks for namespaces": {shopWaypoint, compile.TypeNamespace},
		"waypoint makes one up":        {shopWaypoint, "type.googleapis.com/made.Up"},
		"node asks for frontends":      {"n1", compile.TypeFrontend},
		"node asks for backends":       {"n1", compile.TypeBackend},
	} {
		t.Run(name, func(t *testing.T) {
			core, logs := observer.New(zap.WarnLevel)
			h := serve(t, xds.Config{Log: zap.New(core)})
			h.update(frontend("shop/web", "1", "shop", "wp"), backend("shop/web", "1"), capture("u1", "1", "n1"))
			p := h.connect(tc.caller)
			p.send(wildcard(tc.typeURL))
			if err := p.end(); status.Code(err) != codes.PermissionDenied {
				t.Fatalf("stream ended with %v", err)
			}
			if logs.Len() != 1 || logs.All()[0].ContextMap()["type"] != tc.typeURL || logs.All()[0].ContextMap()["node"] != "n1" {
				t.Errorf("log %+v", logs.All())
			}
		})
	}
}
