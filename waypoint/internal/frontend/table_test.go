package frontend

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-mesh/ambit/apis/waypoint"
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
