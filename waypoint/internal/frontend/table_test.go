package frontend

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/trace/otlp"
	"github.com/ambit-mesh/ambit/waypoint/internal/spans"
)

// A service that is no longer bound is served a little longer, unless it is bound
// again.
func TestLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ip := netip.MustParseAddr("10.96.0.1")
		web := &waypoint.Frontend{Namespace: "shop", Hostname: "web.shop", Addresses: [][]byte{ip.AsSlice()}}
		bind := map[string]*waypoint.Frontend{"shop/web.shop": web}
		table := New(nil, nil)
		state := func() string {
			e := table.Key("shop/web.shop")
			switch {
			case e != table.Address(ip) || e != table.Host("", "web.shop"):
				t.Fatal("found by one name and not by another")
			case e == nil:
				return "unknown"
			case e.Leaving():
				return "leaving"
			}
			return "bound"
		}
		want := func(s string) {
			t.Helper()
			if got := state(); got != s {
				t.Fatalf("%s, want %s", got, s)
			}
		}
		want("unknown")
		table.Update(bind, nil)
		want("bound")
		table.Update(nil, []string{"shop/web.shop"})
		want("leaving")
		if n := len(table.All()); n > 0 {
			t.Errorf("%d services are shown as bound", n)
		}
		table.Update(bind, nil)
		want("bound")
		table.Update(nil, []string{"shop/web.shop"})
		time.Sleep(Linger / 2)
		// To be told twice that it is gone makes it stay no longer.
		table.Update(nil, []string{"shop/web.shop"})
		time.Sleep(Linger/2 + time.Millisecond)
		want("unknown")
		table.Update(nil, nil)
		want("unknown")
	})
}

// Spans go where they went while what is sent cannot be carried out, and a service that
// lingers has its collector for as long.
func TestSpansOfAService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := spans.New(spans.Config{Metrics: otlp.NewMetrics(prometheus.NewRegistry()), Linger: Linger})
		table := New(nil, set)
		send := func(port uint32) map[string]error {
			return table.Update(map[string]*waypoint.Frontend{"shop/web.shop": {
				Namespace: "shop", Hostname: "web.shop", Telemetry: &waypoint.Telemetry{Collector: &waypoint.Collector{Service: "obs/otel", Port: port}},
			}}, nil)
		}
		runs := func(e *Entry) bool { return e.Spans.Tracer(nil) != nil }
		if wrong := send(4317); len(wrong) > 0 {
			t.Fatal(wrong)
		}
		e := table.Key("shop/web.shop")
		if wrong := send(0); len(wrong) != 1 || table.Key("shop/web.shop") != e {
			t.Fatal(wrong)
		}
		time.Sleep(2 * Linger)
		synctest.Wait()
		if !runs(e) {
			t.Error("the last good one has lost its collector")
		}
		table.Update(nil, []string{"shop/web.shop"})
		time.Sleep(Linger / 2)
		synctest.Wait()
		if !runs(table.Key("shop/web.shop")) {
			t.Error("it has none while it lingers")
		}
		time.Sleep(Linger)
		synctest.Wait()
		if runs(e) {
			t.Error("the collector runs for nobody")
		}
	})
}

// Another service may take the address of one that lingers.
func TestLingerYieldsItsAddress(t *testing.T) {
	ip := netip.MustParseAddr("10.96.0.1")
	at := [][]byte{ip.AsSlice()}
	table := New(nil, nil)
	table.Update(map[string]*waypoint.Frontend{"shop/old.shop": {Namespace: "shop", Hostname: "old.shop", Addresses: at}}, nil)
	table.Update(map[string]*waypoint.Frontend{"shop/new.shop": {Namespace: "shop", Hostname: "new.shop", Addresses: at}}, []string{"shop/old.shop"})
	if e := table.Address(ip); e == nil || e.Key != "shop/new.shop" {
		t.Errorf("the address is that of %+v", e)
	}
}
