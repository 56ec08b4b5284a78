package xds_test

import (
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/internal/xds"
)

func subscribe(names ...string) *discovery.DeltaDiscoveryRequest {
	return &discovery.DeltaDiscoveryRequest{TypeUrl: compile.TypeAddress, ResourceNamesSubscribe: names}
}

func unsubscribe(names ...string) *discovery.DeltaDiscoveryRequest {
	return &discovery.DeltaDiscoveryRequest{TypeUrl: compile.TypeAddress, ResourceNamesUnsubscribe: names}
}

// shopMesh is a service of two pods, one of them on n1, and a pod apart.
func shopMesh(h *harness) {
	h.update(
		service("app/echo", "1", "10.96.0.10", "a", "b"),
		pod("a", "1", "10.0.0.1", "n1", "app/echo"), pod("b", "1", "10.0.0.2", "n2", "app/echo"),
		pod("c", "1", "10.0.0.3", "n2"),
	)
}

func TestOnDemandBeginsWithOwnWorkloads(t *testing.T) {
	h := serve(t, xds.Config{})
	shopMesh(h)
	p := h.connect("n1")
	p.send(onDemand(compile.TypeAddress))
	resp := p.expect("+[a] -[]")
	if a := resp.Resources[0].Aliases; len(a) != 1 || a[0] != "/10.0.0.1" {
		t.Errorf("aliases %v", a)
	}
	h.update(pod("d", "1", "10.0.0.4", "n1"))
	p.expect("+[d] -[]")
	h.update(pod("e", "1", "10.0.0.5", "n2")) // nobody asked
	p.quiet("foreign workload")
}

func TestOnDemandNames(t *testing.T) {
	for name, tc := range map[string]struct{ ask, want, again string }{
		"address of a workload": {"/10.0.0.3", "+[c] -[]", "+[c] -[]"},
		"workload by uid":       {"c", "+[c] -[]", "+[c] -[]"},
		"address of a service":  {"/10.96.0.10", "+[a b app/echo] -[]", "+[app/echo] -[]"},
		"service by name":       {"app/echo", "+[a b app/echo] -[]", "+[app/echo] -[]"},
		"unknown":               {"/9.9.9.9", "+[] -[/9.9.9.9]", "+[] -[/9.9.9.9]"},
	} {
		t.Run(name, func(t *testing.T) {
			h := serve(t, xds.Config{})
			shopMesh(h)
			p := h.connect("n3")
			p.send(onDemand(compile.TypeAddress))
			p.expect("+[] -[]")
			p.send(subscribe(tc.ask))
			p.expect(tc.want)
			p.send(subscribe(tc.ask)) // asking again is answered again, with what was asked for
			p.expect(tc.again)
		})
	}
}

func TestOnDemandWithoutStar(t *testing.T) {
	h := serve(t, xds.Config{})
	shopMesh(h)
	p := h.connect("n3")
	p.send(subscribe("/10.0.0.3", "/9.9.9.9"))
	p.expect("+[c] -[/9.9.9.9]")
}

func TestOnDemandFollowsChanges(t *testing.T) {
	h := serve(t, xds.Config{})
	shopMesh(h)
	p := h.connect("n3")
	p.send(onDemand(compile.TypeAddress, "app/echo", "/10.0.0.9"))
	p.expect("+[a b app/echo] -[/10.0.0.9]")
	h.update(pod("c", "2", "10.0.0.3", "n2")) // not asked for
	p.quiet("foreign change")
	h.update(pod("b", "2", "10.0.0.2", "n2", "app/echo"))
	p.expect("+[b] -[]")
	h.update(pod("d", "1", "10.0.0.4", "n2", "app/echo")) // a new endpoint of what is held
	p.expect("+[d] -[]")
	h.remove(compile.TypeAddress, "a")
	p.expect("+[] -[a]")
	h.update(pod("late", "1", "10.0.0.9", "n2")) // the unknown name comes into being
	p.expect("+[late] -[]")
	h.remove(compile.TypeAddress, "c")
	p.quiet("foreign removal")
}

func TestOnDemandUnsubscribe(t *testing.T) {
	h := serve(t, xds.Config{})
	shopMesh(h)
	p := h.connect("n3")
	p.send(onDemand(compile.TypeAddress, "app/echo", "c"))
	p.expect("+[a b c app/echo] -[]")
	p.send(unsubscribe("c"))
	p.quiet("the client forgets what it named")
	h.update(pod("c", "2", "10.0.0.3", "n2"))
	p.quiet("not subscribed any more")
	p.send(unsubscribe("app/echo"))
	p.expect("+[] -[a b]") // what had come along is withdrawn
	h.update(pod("a", "2", "10.0.0.1", "n1", "app/echo"))
	p.quiet("not related any more")
}

func TestOnDemandReconnect(t *testing.T) {
	h := serve(t, xds.Config{})
	shopMesh(h)
	p := h.connect("n3")
	req := onDemand(compile.TypeAddress, "app/echo")
	req.InitialResourceVersions = map[string]string{"app/echo": "1", "a": "1", "b": "0", "c": "1"}
	p.send(req)
	p.expect("+[b] -[c]") // b is old, c is not asked for any more
	h.update(pod("a", "2", "10.0.0.1", "n1", "app/echo"))
	p.expect("+[a] -[]")
}

func TestChangeOfMind(t *testing.T) {
	h := serve(t, xds.Config{})
	shopMesh(h)
	p := h.connect("n3")
	p.send(onDemand(compile.TypeAddress, "c"))
	p.expect("+[c] -[]")
	p.send(subscribe("*"))
	p.expect("+[a b app/echo] -[]") // c is known
	h.update(pod("d", "1", "10.0.0.4", "n2"))
	p.expect("+[d] -[]")
	p.send(unsubscribe("*"))
	p.expect("+[c] -[]") // what is left of the subscription
	h.update(pod("d", "2", "10.0.0.4", "n2"))
	p.quiet("no wildcard any more")
	h.update(pod("c", "2", "10.0.0.3", "n2"))
	p.expect("+[c] -[]")
}
