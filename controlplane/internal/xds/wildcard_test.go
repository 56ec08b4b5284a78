package xds_test

import (
	"bytes"
	"fmt"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/internal/xds"
)

func TestWildcard(t *testing.T) {
	h := serve(t, xds.Config{})
	h.update(service("app/echo", "1", "10.96.0.10"), pod("b", "1", "10.0.0.2", "n2", "app/echo"), pod("a", "1", "10.0.0.1", "n1", "app/echo"))
	p := h.connect("n1")
	p.send(wildcard(compile.TypeAddress))
	first := p.expect("+[a b app/echo] -[]") // workloads before services
	for _, r := range first.Resources {
		if len(r.Aliases) != 0 || r.Version != "1" || r.Resource.TypeUrl != compile.TypeAddress {
			t.Errorf("resource %v", r)
		}
	}
	h.update(pod("c", "1", "10.0.0.3", "n1"))
	p.expect("+[c] -[]")
	h.apply(compile.Delta{Updated: []*compile.Resource{pod("a", "2", "10.0.0.1", "n1")}, Removed: []compile.Key{{Type: compile.TypeAddress, Name: "b"}}})
	p.expect("+[a] -[b]")
	h.update(pod("a", "2", "10.0.0.1", "n1")) // the same version: nothing to tell
	h.remove(compile.TypeAddress, "never-was")
	p.quiet("one")
	h.update(policy("app/allow", "1")) // not subscribed to
	p.quiet("two")
}

func TestExplicitStarIsWildcard(t *testing.T) {
	h := serve(t, xds.Config{})
	h.update(pod("a", "1", "10.0.0.1", "n1"))
	p := h.connect("n1")
	p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: compile.TypeAddress, ResourceNamesSubscribe: []string{"*"}})
	p.expect("+[a] -[]")
	h.update(pod("b", "1", "10.0.0.2", "n2"))
	p.expect("+[b] -[]")
}

func TestWildcardClientMayAskForMore(t *testing.T) {
	h := serve(t, xds.Config{})
	h.update(pod("a", "1", "10.0.0.1", "n1"))
	p := h.connect("n1")
	p.send(wildcard(compile.TypeAddress))
	p.expect("+[a] -[]")
	p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: compile.TypeAddress, ResourceNamesSubscribe: []string{"/10.0.0.1", "/9.9.9.9"}})
	p.expect("+[a] -[/9.9.9.9]")
}

func TestFirstAnswerIsAlwaysGiven(t *testing.T) {
	h := serve(t, xds.Config{})
	p := h.connect("n1")
	for _, typeURL := range []string{compile.TypeAddress, compile.TypeAuthorization, "type.googleapis.com/envoy.config.cluster.v3.Cluster"} {
		p.send(wildcard(typeURL))
		if resp := p.expect("+[] -[]"); resp.TypeUrl != typeURL {
			t.Errorf("answer of type %s", resp.TypeUrl)
		}
	}
	h.update(pod("a", "1", "10.0.0.1", "n1"))
	p.expect("+[a] -[]")
}

func TestReconnect(t *testing.T) {
	for name, tc := range map[string]struct {
		initial map[string]string
		want    string
	}{
		"all known":             {map[string]string{"a": "1", "b": "2"}, "+[] -[]"},
		"a ghost":               {map[string]string{"a": "1", "b": "2", "ghost": "7"}, "+[] -[ghost]"},
		"one is old":            {map[string]string{"a": "0", "b": "2"}, "+[a] -[]"},
		"versions not recorded": {map[string]string{"a": "", "b": "", "ghost": ""}, "+[a b] -[ghost]"},
		"nothing known":         {nil, "+[a b] -[]"},
	} {
		t.Run(name, func(t *testing.T) {
			h := serve(t, xds.Config{})
			h.update(pod("a", "1", "10.0.0.1", "n1"), pod("b", "2", "10.0.0.2", "n2"), pod("gone", "1", "10.0.0.3", "n2"))
			h.remove(compile.TypeAddress, "gone")
			p := h.connect("n1")
			p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: compile.TypeAddress, InitialResourceVersions: tc.initial})
			p.expect(tc.want)
			h.remove(compile.TypeAddress, "a")
			p.expect("+[] -[a]")
		})
	}
}

func TestOneNodeDoesNotSeeAnother(t *testing.T) {
	h := serve(t, xds.Config{})
	h.update(capture("p1", "1", "n1"), capture("p2", "1", "n2"))
	p1, p2 := h.connect("n1"), h.connect("n2")
	p1.send(wildcard(compile.TypePod))
	p1.expect("+[p1] -[]")
	p2.send(&discovery.DeltaDiscoveryRequest{TypeUrl: compile.TypePod, InitialResourceVersions: map[string]string{"p1": "1"}})
	p2.expect("+[p2] -[p1]")
	p2.send(&discovery.DeltaDiscoveryRequest{TypeUrl: compile.TypePod, ResourceNamesSubscribe: []string{"p1"}})
	p2.expect("+[] -[p1]")

	h.update(capture("p1", "2", "n2")) // moved
	p1.expect("+[] -[p1]")
	p2.expect("+[p1] -[]")
	h.remove(compile.TypePod, "p2")
	p2.expect("+[] -[p2]")
	p1.quiet("removal of another node")
}

func TestPoliciesComeFirstAndGoLast(t *testing.T) {
	h := serve(t, xds.Config{})
	h.update(policy("app/old", "1"), pod("a", "1", "10.0.0.1", "n1"))
	p := h.connect("n1")
	p.send(wildcard(compile.TypeAddress))
	p.expect("+[a] -[]")
	p.send(wildcard(compile.TypeAuthorization))
	p.expect("+[app/old] -[]")
	h.apply(compile.Delta{
		Updated: []*compile.Resource{pod("a", "2", "10.0.0.1", "n1"), policy("app/new", "1")},
		Removed: []compile.Key{{Type: compile.TypeAuthorization, Name: "app/old"}},
	})
	p.expect("+[app/new] -[]")
	p.expect("+[a] -[]")
	p.expect("+[] -[app/old]")
	h.remove(compile.TypeAuthorization, "app/new") // no workload refers to it
	p.expect("+[] -[app/new]")
}

func TestLargePushesAreCutInOrder(t *testing.T) {
	h := serve(t, xds.Config{ChunkBytes: 64 << 10})
	var rs []*compile.Resource
	for i := range 100 {
		rs = append(rs, opaque(fmt.Sprintf("r%03d", 99-i), "1", 10_000))
	}
	h.update(rs...)
	ghosts := map[string]string{}
	for i := range 2000 {
		ghosts[fmt.Sprintf("ghost-with-a-name-of-some-length-%04d", i)] = "1"
	}
	p := h.connect("n1")
	p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: compile.TypeAddress, InitialResourceVersions: ghosts})
	var got []string
	removed, responses := 0, 0
	for len(got) < 100 || removed < 2000 {
		resp := p.next()
		responses++
		for _, r := range resp.Resources {
			got = append(got, r.Name)
		}
		removed += len(resp.RemovedResources)
	}
	for i, n := range got {
		if n != fmt.Sprintf("r%03d", i) {
			t.Fatalf("resource %d is %s", i, n)
		}
	}
	if responses < 15 || responses > 25 {
		t.Errorf("%d responses for about 1.2 MB in chunks of 64 KiB", responses)
	}
}

func TestWithoutCredentialsOrDelta(t *testing.T) {
	h := serve(t, xds.Config{})
	if err := h.connect("").end(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("no node: %v", err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "node", "n1")
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(h.conn).StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unimplemented {
		t.Errorf("state of the world: %v", err)
	}
}

func TestBadResourceKeepsTheLastGoodOne(t *testing.T) {
	h := serve(t, xds.Config{})
	h.update(pod("a", "1", "10.0.0.1", "n1"))
	bad := pod("a", "2\xff", "10.0.0.1", "n1") // not UTF-8: cannot be encoded
	if _, err := h.Apply(compile.Delta{Updated: []*compile.Resource{bad, pod("b", "1", "10.0.0.2", "n1")}}); err == nil {
		t.Fatal("no error")
	}
	p := h.connect("n1")
	p.send(wildcard(compile.TypeAddress))
	resp := p.expect("+[a b] -[]")
	if resp.Resources[0].Version != "1" || !bytes.Contains(resp.Resources[0].Resource.Value, []byte("n1")) {
		t.Errorf("resource %v", resp.Resources[0])
	}
}
