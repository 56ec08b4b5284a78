package xds_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/internal/xds"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

func TestNackIsNotRepeated(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	reg := prometheus.NewRegistry()
	h := serve(t, xds.Config{Log: zap.New(core), Metrics: reg})
	h.update(pod("a", "1", "10.0.0.1", "n1"))
	p := h.connect("n1")
	p.send(wildcard(compile.TypeAddress))
	p.nack(p.unanswered(), "a: bad address")
	p.quiet("after the refusal")
	testkit.Until(t, "NACK in the log", func() bool { return logs.Len() == 1 })
	fields := logs.All()[0].ContextMap()
	if fields["detail"] != "a: bad address" || fields["node"] != "n1" {
		t.Errorf("logged %v", fields)
	}
	if st := typeOf(h, compile.TypeAddress); st.Nacks != 1 || st.LastNack != "a: bad address" || st.Acked != 0 {
		t.Errorf("status %+v", st)
	}
	h.update(pod("b", "1", "10.0.0.2", "n1"))
	p.expect("+[b] -[]")
	v := h.update(pod("a", "2", "10.0.0.1", "n1"))
	p.expect("+[a] -[]")
	testkit.Until(t, "all acknowledged", func() bool { return typeOf(h, compile.TypeAddress).Acked == v })
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v %v", problems, err)
	}
}

// typeOf gives the only client's status of a type.
func typeOf(h *harness, typeURL string) xds.TypeStatus {
	for _, c := range h.Clients() {
		for _, st := range c.Types {
			if st.Type == typeURL {
				return st
			}
		}
	}
	return xds.TypeStatus{}
}

func TestStaleNoncesSayNothing(t *testing.T) {
	h := serve(t, xds.Config{})
	v := h.update(pod("a", "1", "10.0.0.1", "n1"))
	p := h.connect("n1")
	p.send(wildcard(compile.TypeAddress))
	resp := p.unanswered()
	for _, nonce := range []string{"ffff", "0", "no nonce at all"} {
		p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: compile.TypeAddress, ResponseNonce: nonce})
	}
	p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: compile.TypeAuthorization, ResponseNonce: resp.Nonce})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := h.AckedBy(ctx, compile.TypeAddress, v); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("acknowledged by a made-up nonce: %v", err)
	}
	p.ack(resp)
	p.expect("+[] -[]") // the answer for Authorization
	if _, err := h.AckedBy(t.Context(), compile.TypeAddress, v); err != nil {
		t.Fatal(err)
	}
}

func TestChangesAreCoalescedWhileAClientIsSlow(t *testing.T) {
	h := serve(t, xds.Config{})
	h.update(pod("a", "0", "10.0.0.1", "n1"), pod("b", "0", "10.0.0.2", "n1"))
	p := h.connect("n1")
	p.send(wildcard(compile.TypeAddress))
	slow := p.unanswered()
	for i := range 1000 {
		h.update(pod("a", fmt.Sprint(i+1), "10.0.0.1", "n1"))
	}
	h.remove(compile.TypeAddress, "b")
	h.update(pod("c", "1", "10.0.0.3", "n1"))
	h.remove(compile.TypeAddress, "c") // came and went unseen
	p.ack(slow)
	resp := p.expect("+[a] -[b c]")
	if resp.Resources[0].Version != "1000" {
		t.Errorf("version %s", resp.Resources[0].Version)
	}
	p.quiet("after the newest state")
}

func TestClientThatDoesNotAcknowledgeIsDisconnected(t *testing.T) {
	reg := prometheus.NewRegistry()
	h := serve(t, xds.Config{StallTimeout: 3 * time.Second, Metrics: reg})
	p := h.connect("n1")
	p.send(wildcard(compile.TypeAddress))
	p.next()
	idle := h.connect("n2") // nothing is owed to this one, so it may stay
	idle.send(wildcard(compile.TypePod))
	idle.next()
	h.update(pod("a", "1", "10.0.0.1", "n1"))
	p.unanswered()
	if err := p.end(); status.Code(err) != codes.DeadlineExceeded {
		t.Fatalf("ended with %v", err)
	}
	idle.quiet("idle client")
}

func TestClientThatDoesNotReadIsDisconnected(t *testing.T) {
	h := serve(t, xds.Config{StallTimeout: 3 * time.Second, ChunkBytes: 64 << 10})
	var rs []*compile.Resource
	for i := range 500 {
		rs = append(rs, opaque(fmt.Sprint(i), "1", 10_000))
	}
	h.update(rs...)
	p := h.dial("n1")
	p.send(wildcard(compile.TypeAddress))
	testkit.Until(t, "connected", func() bool { return len(h.Clients()) == 1 })
	testkit.Until(t, "disconnected", func() bool { return len(h.Clients()) == 0 })
	// Others are not held up.
	q := h.connect("n2")
	q.send(wildcard(compile.TypePod))
	q.expect("+[] -[]")
}

func TestFloodIsSlowedDownAndBounded(t *testing.T) {
	h := serve(t, xds.Config{RequestRate: 1000, RequestBurst: 10, MaxNames: 100})
	shopMesh(h)
	p := h.connect("n3")
	p.send(onDemand(compile.TypeAddress))
	p.expect("+[] -[]")
	for range 200 { // none of these is answered before the one under way is acknowledged
		p.send(subscribe("/10.0.0.3"))
	}
	for i := range 150 {
		if err := p.stream.Send(subscribe(fmt.Sprintf("made-up-%d", i))); err != nil {
			break // the limit has been met
		}
	}
	go func() {
		for resp := range p.got {
			if p.stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: resp.TypeUrl, ResponseNonce: resp.Nonce}) != nil {
				return
			}
		}
	}()
	err := p.end()
	close(p.got)
	if status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("ended with %v", err)
	}
	testkit.Until(t, "forgotten", func() bool { return len(h.Clients()) == 0 })
}

func TestTypesAreBounded(t *testing.T) {
	h := serve(t, xds.Config{})
	p := h.connect("n1")
	for i := range 17 {
		if err := p.stream.Send(wildcard(fmt.Sprintf("type.googleapis.com/made.up.T%d", i))); err != nil {
			break
		}
	}
	if err := p.end(); status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("ended with %v", err)
	}
}

func TestReconnectStorm(t *testing.T) {
	h := serve(t, xds.Config{StreamRate: 0.001, StreamBurst: 3, StreamsPerNode: 2})
	open := func(node string) (*peer, codes.Code) {
		p := h.connect(node)
		// One that is refused may be so before it has sent anything.
		_ = p.stream.Send(wildcard(compile.TypePod))
		select {
		case <-p.got:
			return p, codes.OK
		case err := <-p.ended:
			return p, status.Code(err)
		case <-time.After(patience):
			t.Fatal("no answer")
			return nil, 0
		}
	}
	first, code := open("n1")
	if _, again := open("n1"); code != codes.OK || again != codes.OK {
		t.Fatal("two streams refused")
	}
	if _, code := open("n1"); code != codes.ResourceExhausted {
		t.Fatalf("more streams than may be open: %s", code)
	}
	first.cancel()
	testkit.Until(t, "stream gone", func() bool { return len(h.Clients()) == 1 })
	if _, code := open("n1"); code != codes.OK {
		t.Fatalf("within the burst: %s", code)
	}
	testkit.Until(t, "two streams", func() bool { return len(h.Clients()) == 2 })
	if _, code := open("n2"); code != codes.OK {
		t.Fatalf("another node suffers: %s", code)
	}
}

// acked waits until a node has acknowledged what there was up to a version.
func (h *harness) acked(node string, version uint64) {
	h.t.Helper()
	testkit.Until(h.t, node+" has acknowledged", func() bool {
		for _, c := range h.Clients() {
			for _, st := range c.Types {
				if c.Node == node && st.Type == compile.TypeAddress && st.Acked >= version {
					return true
				}
			}
		}
		return false
	})
}

func TestAckedBy(t *testing.T) {
	h := serve(t, xds.Config{})
	fast, slow, agent := h.connect("n1"), h.connect("n2"), h.connect("n3")
	for _, p := range []*peer{fast, slow} {
		p.send(wildcard(compile.TypeAddress))
		p.next()
	}
	agent.send(wildcard(compile.TypePod))
	agent.next()
	v := h.update(pod("a", "1", "10.0.0.1", "n1"))
	fast.next()
	pending := slow.unanswered()
	h.acked("n1", v)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	behind, err := h.AckedBy(ctx, compile.TypeAddress, v)
	if !errors.Is(err, context.DeadlineExceeded) || !slices.Equal(behind, []string{"n2"}) {
		t.Fatalf("behind %v, %v", behind, err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := h.AckedBy(t.Context(), compile.TypeAddress, v)
		done <- err
	}()
	slow.ack(pending)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	// A change of another type is acknowledged by who is not told anything.
	v = h.update(policy("app/allow", "1"))
	if _, err := h.AckedBy(t.Context(), compile.TypeAddress, v); err != nil {
		t.Fatal(err)
	}
	// One who leaves is not waited for.
	v = h.update(pod("a", "2", "10.0.0.1", "n1"))
	fast.next()
	slow.unanswered()
	go func() {
		_, err := h.AckedBy(t.Context(), compile.TypeAddress, v)
		done <- err
	}()
	slow.cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A node whose stream is broken goes on with what it knew, and will be back.
func TestKnownToWaitsForNodesThatAreAway(t *testing.T) {
	h := serve(t, xds.Config{})
	here, away, agent := h.connect("n1"), h.connect("n2"), h.connect("n2")
	for _, p := range []*peer{here, away} {
		p.send(wildcard(compile.TypeAddress))
		p.next()
	}
	agent.send(wildcard(compile.TypePod))
	agent.next()
	away.cancel()
	testkit.Until(t, "the stream is gone", func() bool { return len(h.Clients()) == 2 })
	v := h.update(pod("a", "1", "10.0.0.1", "n1"))
	here.next()
	h.acked("n1", v)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if behind, err := h.KnownTo(ctx, compile.TypeAddress, v); !errors.Is(err, context.DeadlineExceeded) || !slices.Equal(behind, []string{"n2"}) {
		t.Fatalf("behind %v, %v", behind, err)
	}
	if _, err := h.AckedBy(t.Context(), compile.TypeAddress, v); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := h.KnownTo(t.Context(), compile.TypeAddress, v)
		done <- err
	}()
	back := h.connect("n2")
	back.send(wildcard(compile.TypeAddress))
	pending := back.unanswered()
	select {
	case err := <-done:
		t.Fatalf("known to one that has not acknowledged: %v", err)
	default:
	}
	back.ack(pending)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// One that leaves in the middle is waited for as well, but not for ever: neither a
// node that does not come back nor a waypoint, which may be gone for good.
func TestKnownToForgets(t *testing.T) {
	for name, tc := range map[string]struct {
		caller string
		cfg    xds.Config
	}{
		"a node that has been away for long": {"n2", xds.Config{AbsentFor: time.Nanosecond}},
		"a waypoint":                         {shopWaypoint, xds.Config{}},
	} {
		t.Run(name, func(t *testing.T) {
			h := serve(t, tc.cfg)
			p := h.connect(tc.caller)
			p.send(wildcard(compile.TypeAddress))
			p.next()
			v := h.update(pod("a", "1", "10.0.0.1", "n1"))
			p.unanswered()
			done := make(chan error, 1)
			go func() {
				_, err := h.KnownTo(t.Context(), compile.TypeAddress, v)
				done <- err
			}()
			p.cancel()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestRemovalsAreForgottenWhenEverybodyKnows(t *testing.T) {
	h := serve(t, xds.Config{MaxTombstones: 300})
	p, behind := h.connect("n1"), h.connect("n2")
	p.send(wildcard(compile.TypeAddress))
	p.next()
	behind.send(wildcard(compile.TypeAddress))
	pending := behind.unanswered()
	for i := range 1000 {
		name := fmt.Sprint(i)
		h.update(pod(name, "1", "10.0.0.1", "n1"))
		h.remove(compile.TypeAddress, name)
	}
	// More has been removed than is remembered: the one behind cannot be told
	// what, so it has to start again.
	behind.ack(pending)
	if err := behind.end(); status.Code(err) != codes.Aborted {
		t.Fatalf("ended with %v", err)
	}
	again := h.connect("n2")
	again.send(&discovery.DeltaDiscoveryRequest{TypeUrl: compile.TypeAddress, InitialResourceVersions: map[string]string{"7": "1"}})
	again.expect("+[] -[7]")
}

func TestClientStatus(t *testing.T) {
	h := serve(t, xds.Config{})
	v := h.update(pod("a", "1", "10.0.0.1", "n1"))
	p := h.connect("n1")
	req := wildcard(compile.TypeAddress)
	req.Node = nodeID("ztunnel~10.0.0.7~zt.ambit-system~ambit-system.svc.cluster.local")
	p.send(req)
	p.next()
	testkit.Until(t, "acknowledged", func() bool { return typeOf(h, compile.TypeAddress).Acked == v })
	c := h.Clients()[0]
	st := c.Types[0]
	if c.Node != "n1" || c.ID != req.Node.Id || c.Connected.IsZero() || !st.Wildcard || st.Sent != v || st.Pushes != 1 || st.Pushed != 1 || st.LastPush.IsZero() {
		t.Errorf("status %+v", c)
	}
}
