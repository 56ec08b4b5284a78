package capture

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/netns/netnstest"
)

// site is a pod, its node, and what is beyond the node.
type site struct {
	pod, node, beyond *netns.Namespace
	host              *Host
}

const (
	beyondV4 = "10.8.0.9"
	patience = 700 * time.Millisecond // for what must not come
)

func newSite(t *testing.T) *site {
	t.Helper()
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{pod: netnstest.New(t), node: netnstest.New(t), beyond: netnstest.New(t)}
	gw4, gw6 := netip.MustParseAddr(peerV4), netip.MustParseAddr(peerV6)
	netnstest.Veth(t,
		netnstest.End{NS: s.pod, Link: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix(podV4 + "/24"), netip.MustParsePrefix(podV6 + "/64")}, Gateways: []netip.Addr{gw4, gw6}},
		netnstest.End{NS: s.node, Link: "cni0", Addrs: []netip.Prefix{netip.PrefixFrom(gw4, 24), netip.PrefixFrom(gw6, 64)}})
	netnstest.Veth(t,
		netnstest.End{NS: s.beyond, Link: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix(beyondV4 + "/24"), netip.PrefixFrom(probeV4, 32)}, Gateways: []netip.Addr{netip.MustParseAddr("10.8.0.1")}},
		netnstest.End{NS: s.node, Link: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("10.8.0.1/24")}, Gateways: []netip.Addr{netip.MustParseAddr(beyondV4)}})
	netnstest.Sysctl(t, s.node, "net/ipv4/ip_forward", "1")
	masquerade(t, s.node)
	// Nobody listens on 15006: what is captured is refused.
	if _, err := c.Capture(s.pod, Options{}); err != nil {
		t.Fatal(err)
	}
	serve(t, s.pod, "app", 80)
	s.host = NewHost(s.node)
	return s
}

// masquerade gives forwarded connections the node's address, as kube-proxy does for
// what comes through a node port. The probe address is spared, for the test.
func masquerade(t *testing.T, ns *netns.Namespace) {
	t.Helper()
	err := ns.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		table := c.AddTable(&nftables.Table{Name: "kube", Family: nftables.TableFamilyINet})
		chain := c.AddChain(&nftables.Chain{Name: "post", Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: slices.Concat(addressIs(netip.MustParseAddr(beyondV4), saddr, 32), []expr.Any{&expr.Masq{}})})
		return c.Flush()
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (s *site) sync(t *testing.T) {
	t.Helper()
	if err := s.host.Sync([]netip.Addr{netip.MustParseAddr(podV4), netip.MustParseAddr(podV6)}); err != nil {
		t.Fatal(err)
	}
}

func wantRefused(t *testing.T, who string, err error) {
	t.Helper()
	if !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("%s: %v, want a refusal", who, err)
	}
}

// A probe of the node's kubelet reaches a captured pod past everything that decides
// about connections, and nobody else does: not through the node's masquerade, not
// by taking the probe's address.
func TestHostProbes(t *testing.T) {
	s := newSite(t)
	_, err := connect(t, s.node, netns.DialOptions{}, podV4+":80")
	wantRefused(t, "the node, without rules", err)

	s.sync(t)
	for dst, from := range map[string]netip.Addr{podV4 + ":80": probeV4, "[" + podV6 + "]:80": probeV6} {
		l, err := connect(t, s.node, netns.DialOptions{}, dst)
		if err != nil {
			t.Errorf("the node to %s: %v", dst, err)
			continue
		}
		if l.name != "app" || netip.MustParseAddr(l.from).Unmap() != from {
			t.Errorf("the node to %s: %s answers to %s", dst, l.name, l.from)
		}
		l.wantAlive("a probe")
	}
	_, err = connect(t, s.beyond, netns.DialOptions{Source: netip.AddrPortFrom(netip.MustParseAddr(beyondV4), 0)}, podV4+":80")
	wantRefused(t, "somebody masqueraded by the node", err)
	if l, err := connect(t, s.beyond, netns.DialOptions{Source: netip.AddrPortFrom(probeV4, 0), Timeout: patience}, podV4+":80"); err == nil {
		t.Errorf("somebody with the probe address: %s answers", l.name)
	}
	wantRefused(t, "another user of the node", dialAs(t, s.node, 65534, podV4))

	// The pod goes: what is left is as if there had been nothing.
	if err := s.host.Sync(nil); err != nil {
		t.Fatal(err)
	}
	_, err = connect(t, s.node, netns.DialOptions{}, podV4+":80")
	wantRefused(t, "the node, for a pod that is not captured any more", err)
	// The test can see the difference: without the guard the address opens the pod.
	if _, err := connect(t, s.beyond, netns.DialOptions{Source: netip.AddrPortFrom(probeV4, 0), Timeout: 5 * time.Second}, podV4+":80"); err != nil {
		t.Errorf("with the probe address and without the guard: %v", err)
	}
}

// dialAs connects as a user of the node that is not root.
func dialAs(t *testing.T, ns *netns.Namespace, uid int, dst string) error {
	t.Helper()
	return ns.Do(func() error {
		_, _ = unix.SetfsuidRetUid(uid) // gives the former one, and never an error
		if now, _ := unix.SetfsuidRetUid(-1); now != uid {
			t.Log("there is no other user here")
			return unix.ECONNREFUSED
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		_, _ = unix.SetfsuidRetUid(os.Geteuid())
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Connect(fd, &unix.SockaddrInet4{Port: 80, Addr: netip.MustParseAddr(dst).As4()})
	})
}

func TestHostRepairsAndRemoves(t *testing.T) {
	s := newSite(t)
	before := dumpAll(t, s.node)
	s.sync(t)
	table := &nftables.Table{Name: hostTable, Family: nftables.TableFamilyINet}
	for name, damage := range map[string]func(*nftables.Conn) error{
		"table gone": func(c *nftables.Conn) error { c.DelTable(table); return c.Flush() },
		"rules gone": func(c *nftables.Conn) error {
			c.FlushChain(&nftables.Chain{Name: "guard", Table: table})
			return c.Flush()
		},
		"set emptied": func(c *nftables.Conn) error {
			c.FlushSet(&nftables.Set{Table: table, Name: "pods4"})
			return c.Flush()
		},
		"nothing": func(*nftables.Conn) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			intact := dumpAll(t, s.node)
			err := s.node.Do(func() error {
				c, err := nftables.New()
				if err != nil {
					return err
				}
				return damage(c)
			})
			if err != nil {
				t.Fatal(err)
			}
			s.sync(t)
			if _, err := connect(t, s.node, netns.DialOptions{}, podV4+":80"); err != nil {
				t.Error(err)
			}
			if name == "nothing" && dumpAll(t, s.node) != intact {
				t.Error("rules that were intact are other ones now")
			}
		})
	}
	// Another agent, after a restart, takes away what it has not made itself.
	if err := NewHost(s.node).Remove(); err != nil {
		t.Fatal(err)
	}
	if after := dumpAll(t, s.node); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	if err := NewHost(s.node).Remove(); err != nil {
		t.Errorf("a second time: %v", err)
	}
}
