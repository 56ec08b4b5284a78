package capture

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	vnetlink "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/netns/netnstest"
)

func tableRoutes2(h *vnetlink.Handle, af, table int) ([]vnetlink.Route, error) {
	return h.RouteListFiltered(af, &vnetlink.Route{Table: table}, vnetlink.RT_FILTER_TABLE)
}

// from is a source address to connect from, and its mark.
func from(addr string, mark uint32) netns.DialOptions {
	o := netns.DialOptions{Mark: mark}
	if addr != "" {
		o.Source = netip.AddrPortFrom(netip.MustParseAddr(addr), 0)
	}
	return o
}

func TestWhatIsRedirected(t *testing.T) {
	b := newBed(t)
	serve(t, b.pod, "app", 80)
	serve(t, b.pod, "outbound", OutboundPort)
	serve(t, b.pod, "inbound", InboundPort)
	serve(t, b.pod, "tunnel", TunnelPort)
	serve(t, b.peer, "peer", 80)
	serve(t, b.peer, "peer-tunnel", TunnelPort)
	b.capture(t)
	for _, tc := range []struct {
		name string
		ns   *netns.Namespace
		opts netns.DialOptions
		dst  string
		want string // who answers
	}{
		{"outbound IPv4", b.pod, from("", 0), "10.9.0.1:80", "outbound"},
		{"outbound IPv6", b.pod, from("", 0), "[fd00:9::1]:80", "outbound"},
		{"outbound, to an address of nobody's", b.pod, from("", 0), "192.0.2.7:4711", "outbound"},
		{"outbound, to another's tunnel port", b.pod, from("", 0), "10.9.0.1:15008", "outbound"},
		{"outbound, with a mark of the pod's own", b.pod, from("", 0x1000), "10.9.0.1:80", "outbound"},
		{"inbound IPv4", b.peer, from("", 0), "10.9.0.2:80", "inbound"},
		{"inbound IPv6", b.peer, from("", 0), "[fd00:9::2]:80", "inbound"},
		{"inbound, where nobody listens", b.peer, from("", 0), "10.9.0.2:4711", "inbound"},
		{"inbound, to the outbound port", b.peer, from("", 0), "10.9.0.2:15001", "inbound"},

		{"tunnel IPv4", b.peer, from("", 0), "10.9.0.2:15008", "tunnel"},
		{"tunnel IPv6", b.peer, from("", 0), "[fd00:9::2]:15008", "tunnel"},
		{"ztunnel to the world IPv4", b.pod, from("", ProxyMark), "10.9.0.1:80", "peer"},
		{"ztunnel to the world IPv6", b.pod, from("", ProxyMark), "[fd00:9::1]:80", "peer"},
		{"ztunnel, with other bits of the mark in use", b.pod, from("", 0xab000|ProxyMark), "10.9.0.1:80", "peer"},
		{"ztunnel to a tunnel", b.pod, from("", ProxyMark), "10.9.0.1:15008", "peer-tunnel"},
		{"loopback IPv4", b.pod, from("", 0), "127.0.0.1:80", "app"},
		{"loopback IPv4, another address", b.pod, from("", 0), "127.1.2.3:80", "app"},
		{"loopback IPv6", b.pod, from("", 0), "[::1]:80", "app"},
		{"own address IPv4", b.pod, from("", 0), "10.9.0.2:80", "app"},
		{"own address IPv6", b.pod, from("", 0), "[fd00:9::2]:80", "app"},
		{"probe IPv4", b.peer, from("169.254.7.127", 0), "10.9.0.2:80", "app"},
		{"probe IPv6", b.peer, from("fd16:9254:7127:1337:ffff:ffff:ffff:ffff", 0), "[fd00:9::2]:80", "app"},

		{"delivery IPv4", b.pod, from(peerV4, ProxyMark), "10.9.0.2:80", "app"},
		{"delivery IPv6", b.pod, from(peerV6, ProxyMark), "[fd00:9::2]:80", "app"},
		{"delivery IPv4, from afar", b.pod, from("203.0.113.5", ProxyMark), "10.9.0.2:80", "app"},
		{"delivery IPv6, from afar", b.pod, from("2001:db8::5", ProxyMark), "[fd00:9::2]:80", "app"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := mustConnect(t, tc.ns, tc.opts, tc.dst)
			if l.name != tc.want || l.to != tc.dst {
				t.Errorf("%s answered for %s, want %s for %s", l.name, l.to, tc.want, tc.dst)
			}
			if src := tc.opts.Source; src.IsValid() && l.from != src.Addr().String() {
				t.Errorf("server sees %s, want %s", l.from, src.Addr())
			}
			l.wantAlive("once more")
		})
	}
}

// A connection goes on through capture and release, whichever of the two it
// began under.
func TestConnectionsSurvive(t *testing.T) {
	for _, tc := range []struct {
		name  string
		setup func(*testing.T, *netns.Namespace)
	}{
		{"conntrack comes with the capture", func(*testing.T, *netns.Namespace) {}},
		{"conntrack was there before", userRules},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBed(t)
			tc.setup(t, b.pod)
			serve(t, b.pod, "app", 80)
			serve(t, b.peer, "peer", 80)
			var before []*link
			for _, dst := range []string{"10.9.0.1:80", "[fd00:9::1]:80"} {
				before = append(before, mustConnect(t, b.pod, from("", 0), dst))
			}
			for _, dst := range []string{"10.9.0.2:80", "[fd00:9::2]:80"} {
				before = append(before, mustConnect(t, b.peer, from("", 0), dst))
			}
			alive := func(links []*link, when string) {
				t.Helper()
				for _, l := range links {
					l.wantAlive(when)
				}
			}

			b.capture(t)
			serve(t, b.pod, "outbound", OutboundPort)
			serve(t, b.pod, "inbound", InboundPort)
			alive(before, "captured")
			during := []*link{
				mustConnect(t, b.pod, from("", 0), "10.9.0.1:80"),
				mustConnect(t, b.pod, from("", 0), "[fd00:9::1]:80"),
				mustConnect(t, b.peer, from("", 0), "10.9.0.2:80"),
				mustConnect(t, b.peer, from("", 0), "[fd00:9::2]:80"),
				mustConnect(t, b.pod, from(peerV4, ProxyMark), "10.9.0.2:80"),
				mustConnect(t, b.pod, from(peerV6, ProxyMark), "[fd00:9::2]:80"),
			}
			serve(t, b.pod, "tunnel", TunnelPort)
			during = append(during, mustConnect(t, b.peer, from("", 0), "10.9.0.2:15008"))
			if n, err := b.capturer.Connections(b.pod); err != nil || n != (Connections{Live: 6, Tunnels: 1}) {
				t.Errorf("%+v, %v; want 6 live ones and a tunnel", n, err)
			}

			b.stopNew(t)
			b.wantState(t, Draining)
			alive(before, "draining")
			alive(during, "draining")
			if l := mustConnect(t, b.pod, from("", 0), "10.9.0.1:80"); l.name != "peer" {
				t.Errorf("new outbound connection answered by %s", l.name)
			}
			if l := mustConnect(t, b.peer, from("", 0), "10.9.0.2:80"); l.name != "app" {
				t.Errorf("new inbound connection answered by %s", l.name)
			}
			for _, l := range during {
				l.conn.Close()
			}
			netnstest.Eventually(t, "no captured connection is left", func() bool {
				n, err := b.capturer.Connections(b.pod)
				return err == nil && n == (Connections{})
			})

			b.release(t)
			alive(before, "released")
			if l := mustConnect(t, b.peer, from("", 0), "[fd00:9::2]:80"); l.name != "app" {
				t.Errorf("new connection answered by %s", l.name)
			}
		})
	}
}

func TestReleaseLeavesNothing(t *testing.T) {
	for _, tc := range []struct {
		name  string
		setup func(*testing.T, *netns.Namespace)
	}{
		{"empty pod", func(*testing.T, *netns.Namespace) {}},
		{"pod with rules of its own", userRules},
		{"pod with routing of its own", func(t *testing.T, ns *netns.Namespace) {
			h := netnstest.Handle(t, ns)
			for _, f := range []family{{af: unix.AF_INET}, {af: unix.AF_INET6}} {
				r := deliveryRule(f)
				r.Table, r.Protocol = 77, 3
				if err := h.RuleAdd(r); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"pod that has the very same routing", func(t *testing.T, ns *netns.Namespace) {
			h := netnstest.Handle(t, ns)
			var fams []family
			if err := ns.Do(func() (err error) { fams, err = families(); return err }); err != nil {
				t.Fatal(err)
			}
			lo, err := h.LinkByName("lo")
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range fams {
				rule, route := deliveryRule(f), deliveryRoute(f, lo)
				rule.Protocol, route.Protocol = 3, 3
				if err := errors.Join(h.RuleAdd(rule), h.RouteAdd(route)); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"IPv6 off", func(t *testing.T, ns *netns.Namespace) {
			netnstest.Sysctl(t, ns, "net/ipv6/conf/all/disable_ipv6", "1")
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBed(t)
			tc.setup(t, b.pod)
			before := dumpAll(t, b.pod)
			b.wantState(t, Absent)
			b.release(t)
			b.stopNew(t)
			if got := dumpAll(t, b.pod); got != before {
				t.Errorf("releasing what was not captured changed the pod:\n%s\nbefore:\n%s", got, before)
			}
			b.capture(t)
			b.wantState(t, Captured)
			if dumpAll(t, b.pod) == before {
				t.Error("the dump does not see the capture")
			}
			b.stopNew(t)
			b.stopNew(t)
			b.wantState(t, Draining)
			b.capture(t)
			b.wantState(t, Captured)
			b.release(t)
			b.release(t)
			b.wantState(t, Absent)
			if got := dumpAll(t, b.pod); got != before {
				t.Errorf("after release:\n%s\nbefore:\n%s", got, before)
			}
		})
	}
}

func TestCaptureIsIdempotent(t *testing.T) {
	b := newBed(t)
	first, err := b.capturer.Capture(b.pod, Options{})
	if err != nil || len(first) == 0 {
		t.Fatalf("changed %v, %v", first, err)
	}
	after := dumpAll(t, b.pod)
	for range 3 {
		changed, err := b.capturer.Capture(b.pod, Options{})
		if err != nil || len(changed) != 0 {
			t.Errorf("changed %v, %v", changed, err)
		}
	}
	if got := dumpAll(t, b.pod); got != after {
		t.Errorf("changed from\n%s\nto\n%s", after, got)
	}
}

func TestRepair(t *testing.T) {
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	outbound := &nftables.Chain{Name: "outbound", Table: table}
	nft := func(f func(*testing.T, *nftables.Conn)) func(*testing.T, *netns.Namespace) {
		return func(t *testing.T, ns *netns.Namespace) {
			err := ns.Do(func() error {
				c, err := nftables.New()
				if err != nil {
					return err
				}
				f(t, c)
				return c.Flush()
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tc := range []struct {
		name   string
		damage func(*testing.T, *netns.Namespace)
		want   string
	}{
		{"ruleset flushed", nft(func(_ *testing.T, c *nftables.Conn) { c.FlushRuleset() }), "table ambit"},
		{"table flushed", nft(func(_ *testing.T, c *nftables.Conn) { c.FlushTable(table) }), "rules of chain inbound"},
		{"chain deleted", nft(func(_ *testing.T, c *nftables.Conn) { c.FlushChain(outbound); c.DelChain(outbound) }), "chain outbound"},
		{"rule put in front", nft(func(_ *testing.T, c *nftables.Conn) {
			c.InsertRule(&nftables.Rule{Table: table, Chain: outbound, Exprs: accept()})
		}), "rules of chain outbound"},
		{"rule replaced", nft(func(t *testing.T, c *nftables.Conn) {
			rules, err := c.GetRules(table, outbound)
			if err != nil {
				t.Fatal(err)
			}
			last := rules[len(rules)-1]
			last.Table = table
			last.Exprs = append(isSYN(), redirect(9999)...)
			c.ReplaceRule(last)
		}), "rules of chain outbound"},
		{"foreign chain", nft(func(_ *testing.T, c *nftables.Conn) { c.AddChain(&nftables.Chain{Name: "x", Table: table}) }), "foreign chain x"},
		{"policy drop", nft(func(_ *testing.T, c *nftables.Conn) {
			drop := nftables.ChainPolicyDrop
			c.AddChain(&nftables.Chain{Name: "inbound", Table: table, Policy: &drop})
		}), "hook of chain inbound"},
		{"rule removed", func(t *testing.T, ns *netns.Namespace) {
			if err := netnstest.Handle(t, ns).RuleDel(deliveryRule(family{af: unix.AF_INET6})); err != nil {
				t.Fatal(err)
			}
		}, "IPv6 rule"},
		{"route removed", func(t *testing.T, ns *netns.Namespace) {
			h := netnstest.Handle(t, ns)
			routes, err := tableRoutes(h, family{af: unix.AF_INET})
			if err != nil || len(routes) != 1 {
				t.Fatal(routes, err)
			}
			if err := h.RouteDel(&routes[0]); err != nil {
				t.Fatal(err)
			}
		}, "IPv4 route"},
		{"loopback was down for a while", func(t *testing.T, ns *netns.Namespace) {
			h := netnstest.Handle(t, ns)
			lo, err := h.LinkByName("lo")
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(h.LinkSetDown(lo), h.LinkSetUp(lo)); err != nil {
				t.Fatal(err)
			}
		}, "IPv6 route"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBed(t)
			userRules(t, b.pod)
			serve(t, b.pod, "outbound", OutboundPort)
			serve(t, b.pod, "inbound", InboundPort)
			b.capture(t)
			tc.damage(t, b.pod)
			b.wantState(t, Damaged)
			changed, err := b.capturer.Capture(b.pod, Options{})
			if err != nil || !slices.Contains(changed, tc.want) {
				t.Errorf("changed %q, %v; want %q among it", changed, err, tc.want)
			}
			b.wantState(t, Captured)
			if l := mustConnect(t, b.pod, from("", 0), "10.9.0.1:80"); l.name != "outbound" {
				t.Errorf("outbound answered by %s", l.name)
			}
			if l := mustConnect(t, b.peer, from("", 0), "[fd00:9::2]:80"); l.name != "inbound" {
				t.Errorf("inbound answered by %s", l.name)
			}
		})
	}
}

// What a repair replaces keeps the connections that are redirected already.
func TestRepairKeepsConnections(t *testing.T) {
	b := newBed(t)
	serve(t, b.pod, "outbound", OutboundPort)
	b.capture(t)
	l := mustConnect(t, b.pod, from("", 0), "10.9.0.1:80")
	err := b.pod.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.FlushTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet})
		return c.Flush()
	})
	if err != nil {
		t.Fatal(err)
	}
	b.capture(t)
	l.wantAlive("repaired")
}

// A pod's own translation decides about what ztunnel sends, and not whether
// ztunnel sees it.
func TestPodWithItsOwnTranslation(t *testing.T) {
	b := newBed(t)
	userRules(t, b.pod)
	serve(t, b.peer, "peer", 80)
	serve(t, b.pod, "outbound", OutboundPort)
	if l := mustConnect(t, b.pod, from("", 0), "192.0.2.1:8080"); l.name != "peer" {
		t.Fatalf("before: answered by %s", l.name)
	}
	b.capture(t)
	if l := mustConnect(t, b.pod, from("", 0), "192.0.2.1:8080"); l.name != "outbound" || l.to != "192.0.2.1:8080" {
		t.Errorf("captured: answered by %s for %s", l.name, l.to)
	}
	if l := mustConnect(t, b.pod, from("", ProxyMark), "192.0.2.1:8080"); l.name != "peer" {
		t.Errorf("ztunnel: answered by %s", l.name)
	}
}

func TestIPv6TurnedOff(t *testing.T) {
	b := newBed(t)
	netnstest.Sysctl(t, b.pod, "net/ipv6/conf/all/disable_ipv6", "1")
	before := dumpAll(t, b.pod)
	serve(t, b.pod, "app", 80)
	serve(t, b.pod, "outbound", OutboundPort)
	b.capture(t)
	if l := mustConnect(t, b.pod, from("", 0), "10.9.0.1:80"); l.name != "outbound" {
		t.Errorf("answered by %s", l.name)
	}
	if l := mustConnect(t, b.pod, from(peerV4, ProxyMark), "10.9.0.2:80"); l.name != "app" {
		t.Errorf("answered by %s", l.name)
	}
	// Turned on: the missing half is a repair. Off again: nothing stays behind.
	netnstest.Sysctl(t, b.pod, "net/ipv6/conf/all/disable_ipv6", "0")
	b.wantState(t, Damaged)
	b.capture(t)
	netnstest.Sysctl(t, b.pod, "net/ipv6/conf/all/disable_ipv6", "1")
	b.wantState(t, Captured)
	b.release(t)
	if got := dumpAll(t, b.pod); got != before {
		t.Errorf("after release:\n%s\nbefore:\n%s", got, before)
	}
}

func TestRefusals(t *testing.T) {
	t.Run("routing table in use", func(t *testing.T) {
		b := newBed(t)
		h := netnstest.Handle(t, b.pod)
		eth0, err := h.LinkByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		dst, err := vnetlink.ParseIPNet("198.51.100.0/24")
		if err != nil {
			t.Fatal(err)
		}
		if err := h.RouteAdd(&vnetlink.Route{LinkIndex: eth0.Attrs().Index, Dst: dst, Table: routeTable}); err != nil {
			t.Fatal(err)
		}
		before := dumpAll(t, b.pod)
		if _, err := b.capturer.Capture(b.pod, Options{}); err == nil || !strings.Contains(err.Error(), "table 100 of the pod is in use") {
			t.Errorf("got %v", err)
		}
		if got := dumpAll(t, b.pod); got != before {
			t.Error("a refused capture changed the pod")
		}
	})
	t.Run("loopback down", func(t *testing.T) {
		b := newBed(t)
		ns, err := netns.New()
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		if _, err := b.capturer.Capture(ns, Options{}); err == nil || !strings.Contains(err.Error(), "lo is down") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("namespace closed", func(t *testing.T) {
		b := newBed(t)
		b.pod.Close()
		if _, err := b.capturer.Capture(b.pod, Options{}); err == nil {
			t.Error("want an error")
		}
	})
}

// A look at every pod twice a minute must cost nothing that adds up.
func TestLookingLeaksNothing(t *testing.T) {
	b := newBed(t)
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	look := func() {
		b.capture(t)
		b.wantState(t, Captured)
		if _, err := b.capturer.Connections(b.pod); err != nil {
			t.Fatal(err)
		}
		b.stopNew(t)
		b.release(t)
	}
	look()
	before := count()
	for range 20 {
		look()
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}
