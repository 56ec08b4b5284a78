package capture

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/netns/netnstest"
)

func TestMain(m *testing.M) {
	os.Exit(netnstest.Main(func() int {
		code := m.Run()
		if err := goleak.Find(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		return code
	}))
}

const (
	podV4, peerV4 = "10.9.0.2", "10.9.0.1"
	podV6, peerV6 = "fd00:9::2", "fd00:9::1"
)

// bed is a pod and the rest of the world, with a Capturer.
type bed struct {
	pod, peer *netns.Namespace
	capturer  *Capturer
}

func newBed(t *testing.T) *bed {
	t.Helper()
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{pod: netnstest.New(t), peer: netnstest.New(t), capturer: c}
	netnstest.Veth(t,
		netnstest.End{
			NS: b.pod, Link: "eth0",
			Addrs:    []netip.Prefix{netip.MustParsePrefix(podV4 + "/24"), netip.MustParsePrefix(podV6 + "/64")},
			Gateways: []netip.Addr{netip.MustParseAddr(peerV4), netip.MustParseAddr(peerV6)},
		},
		netnstest.End{
			NS: b.peer, Link: "veth0",
			Addrs: []netip.Prefix{
				netip.MustParsePrefix(peerV4 + "/24"), netip.MustParsePrefix(peerV6 + "/64"),
				netip.PrefixFrom(probeV4, 32), netip.PrefixFrom(probeV6, 128),
			},
		})
	return b
}

func (b *bed) capture(t *testing.T) {
	t.Helper()
	if _, err := b.capturer.Capture(b.pod, Options{}); err != nil {
		t.Fatal(err)
	}
}

func (b *bed) stopNew(t *testing.T) {
	t.Helper()
	if err := b.capturer.StopNew(b.pod); err != nil {
		t.Fatal(err)
	}
}

func (b *bed) release(t *testing.T) {
	t.Helper()
	if err := b.capturer.Release(b.pod); err != nil {
		t.Fatal(err)
	}
}

func (b *bed) wantState(t *testing.T, want State) {
	t.Helper()
	if got, err := b.capturer.Inspect(b.pod); err != nil || got != want {
		t.Errorf("state %s, %v; want %s", got, err, want)
	}
}

// serve answers every connection to a port of ns with one line, "name from to",
// and then echoes. from is the client's address, to where the client was going.
func serve(t *testing.T, ns *netns.Namespace, name string, port uint16) {
	t.Helper()
	l, err := netns.Listen(ns, "tcp", netip.AddrPortFrom(netip.IPv6Unspecified(), port), netns.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		l.Close()
		cancel()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := l.AcceptConn()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { c.Close() })
			wg.Go(func() {
				defer c.Close()
				to, err := netns.OriginalDst(c)
				if err != nil {
					to = c.LocalAddrPort() // no conntrack here: nothing was redirected
				}
				fmt.Fprintf(c, "%s %s %s\n", name, c.RemoteAddrPort().Addr(), to)
				_, _ = io.Copy(c, c)
			})
		}
	})
}

// link is an open connection to a server of serve.
type link struct {
	t    *testing.T
	conn *netns.Conn
	r    *bufio.Reader
	// What the first line said.
	name, from, to string
}

func connect(t *testing.T, ns *netns.Namespace, opts netns.DialOptions, dst string) (*link, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := netns.Dial(ctx, ns, opts, netip.MustParseAddrPort(dst))
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, err
	}
	l := &link{t: t, conn: c, r: bufio.NewReader(c)}
	line, err := l.r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	f := strings.Fields(line)
	l.name, l.from, l.to = f[0], f[1], f[2]
	return l, nil
}

func mustConnect(t *testing.T, ns *netns.Namespace, opts netns.DialOptions, dst string) *link {
	t.Helper()
	l, err := connect(t, ns, opts, dst)
	if err != nil {
		t.Fatalf("connect to %s: %v", dst, err)
	}
	return l
}

// wantAlive sends a line there and back.
func (l *link) wantAlive(when string) {
	l.t.Helper()
	if _, err := fmt.Fprintln(l.conn, when); err != nil {
		l.t.Errorf("%s: %v", when, err)
		return
	}
	if line, err := l.r.ReadString('\n'); err != nil || line != when+"\n" {
		l.t.Errorf("%s: read %q, %v", when, line, err)
	}
}

// dumpAll is everything that Capture could have changed, and what others own.
func dumpAll(t *testing.T, ns *netns.Namespace) string {
	t.Helper()
	var b strings.Builder
	err := ns.Do(func() error {
		c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
		if err != nil {
			return err
		}
		defer c.Close()
		for _, msg := range []int{unix.NFT_MSG_GETTABLE, unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_GETRULE, unix.NFT_MSG_GETSET, unix.NFT_MSG_GETOBJ} {
			replies, err := c.Execute(netlink.Message{
				Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | msg), Flags: netlink.Request | netlink.Dump},
				Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
			})
			if err != nil {
				return err
			}
			for _, r := range replies {
				// Bytes 2 and 3 are the ruleset's generation, which counts changes.
				fmt.Fprintf(&b, "nft %d %x %x\n", msg, r.Data[:2], r.Data[4:])
			}
		}
		for _, f := range []string{"all/rp_filter", "all/route_localnet", "lo/route_localnet", "all/accept_local", "all/src_valid_mark"} {
			v, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + f)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "sysctl %s=%s", f, v)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	h := netnstest.Handle(t, ns)
	for _, af := range []int{unix.AF_INET, unix.AF_INET6} {
		rules, err := h.RuleList(af)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rules {
			fmt.Fprintf(&b, "rule %d %s mark %x proto %d\n", af, r, r.Mark, r.Protocol)
		}
		for table := 1; table < 256; table++ {
			routes, err := tableRoutes2(h, af, table)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range routes {
				fmt.Fprintf(&b, "route %d %d %s\n", af, table, r)
			}
		}
	}
	return b.String()
}

// userRules adds what a pod may have of its own: a table of each of two families
// and a DNAT of port 8080 of an address of nobody's to the peer's port 80.
func userRules(t *testing.T, ns *netns.Namespace) {
	t.Helper()
	err := ns.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		for _, fam := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyINet} {
			table := c.AddTable(&nftables.Table{Name: "users", Family: fam})
			nat := c.AddChain(&nftables.Chain{
				Name: "out", Table: table, Type: nftables.ChainTypeNAT,
				Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest,
			})
			c.AddRule(&nftables.Rule{Table: table, Chain: nat, Exprs: append(
				addressIs(netip.MustParseAddr("192.0.2.1"), daddr, 32),
				&expr.Immediate{Register: 1, Data: netip.MustParseAddr(peerV4).AsSlice()},
				&expr.Immediate{Register: 2, Data: []byte{0, 80}},
				&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegAddrMax: 1, RegProtoMin: 2, RegProtoMax: 2, Specified: true},
			)})
		}
		return c.Flush()
	})
	if err != nil {
		t.Fatal(err)
	}
}
