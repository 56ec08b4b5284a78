package netns_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// chaos takes things away from a mesh and gives them back.
type chaos struct {
	*mesh
	pods map[string][]netip.Addr // addresses of a pod of each node, one a family
	self string
}

func (m *mesh) newChaos() *chaos {
	m.t.Helper()
	self, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	c := &chaos{mesh: m, pods: make(map[string][]netip.Addr), self: self}
	for _, p := range m.status().Pods {
		if c.pods[p.Node] != nil {
			continue
		}
		for _, ip := range p.IPs {
			c.pods[p.Node] = append(c.pods[p.Node], netip.MustParseAddr(ip))
		}
	}
	return c
}

// loads connect across the nodes in both directions, on one node, and between pods that
// are not enrolled.
func (c *chaos) loads() []*chaosLoad {
	c.t.Helper()
	address := func(ns, pod, port string) string { return pod + "." + ns + ".svc.cluster.local:" + port }
	across, near, plain := path{true, []string{"n1", "n2"}}, path{true, []string{"n1"}}, path{false, []string{"n1", "n2"}}
	return []*chaosLoad{
		c.chaosLoad("in", "client", map[string]path{"far": across, "far, held": across, "near": near, "near, held": near},
			target{Name: "far", Addr: address("in", "server-n2", "8080")}, target{Name: "far, held", Addr: address("in", "server-n2", "8085"), Held: true},
			target{Name: "near", Addr: address("in", "server-n1", "8080")}, target{Name: "near, held", Addr: address("in", "server-n1", "8085"), Held: true}),
		c.chaosLoad("in", "server-n2", map[string]path{"back": across}, target{Name: "back", Addr: address("in", "server-n1", "8080")}),
		c.chaosLoad("out", "client", map[string]path{"plain": plain, "plain, held": plain},
			target{Name: "plain", Addr: address("out", "server-n2", "8080")}, target{Name: "plain, held", Addr: address("out", "server-n2", "8085"), Held: true}),
	}
}

// take does a step and waits until everything works again.
func (c *chaos) take(s step) taken {
	c.t.Helper()
	before := make(map[string]component)
	for _, f := range s.faults {
		if !strings.HasPrefix(f.what, "link ") {
			before[f.what] = c.component(f.what)
		}
	}
	did := taken{step: s, begin: time.Now()}
	c.each(s.faults, func(f fault) []string { return c.away(f, before[f.what].pid) })
	did.gone = time.Now()
	select {
	case <-time.After(s.away):
	case <-c.t.Context().Done():
	}
	c.each(s.faults, func(f fault) []string { return c.giveBack(f, before[f.what].pid) })
	did.back = time.Now()
	for _, f := range s.faults {
		if was, ok := before[f.what]; ok {
			c.until(f.String()+" is back", func() bool {
				now := c.component(f.what)
				return now.ready && now.pid != 0 && (f.how == "hung" || now.pid != was.pid)
			})
		}
	}
	c.wholesome()
	did.end = time.Now()
	return did
}

// each does something about all faults at once: a command of ambit local, or nothing.
func (c *chaos) each(faults []fault, do func(fault) []string) {
	c.t.Helper()
	errs := make([]error, len(faults))
	var wg sync.WaitGroup
	for i, f := range faults {
		args := do(f)
		if args == nil {
			continue
		}
		wg.Go(func() {
			if out, err := c.command(c.t.Context(), args...).CombinedOutput(); err != nil {
				errs[i] = fmt.Errorf("%s: %w: %s", f, err, out)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		c.t.Fatal(err)
	}
}

// away is what takes it away from a mesh in which a component's process is pid.
func (c *chaos) away(f fault, pid int) []string {
	switch f.how {
	case "killed":
		return []string{"restart", f.what, "--signal", "9"}
	case "replaced":
		return []string{"restart", f.what}
	case "hung":
		return []string{"exec", "wire", "--", "/bin/kill", "-STOP", strconv.Itoa(pid)}
	default:
		return c.link(f, "cut")
	}
}

// giveBack is what gives it back, if it does not come by itself.
func (c *chaos) giveBack(f fault, pid int) []string {
	switch f.how {
	case "killed", "replaced":
		return nil
	case "hung":
		return []string{"exec", "wire", "--", "/bin/kill", "-CONT", strconv.Itoa(pid)}
	default:
		return c.link(f, "mend")
	}
}

// controlAddr is where the control plane is, as nodes see it.
const controlAddr = "172.18.0.1/32"

func (c *chaos) link(f fault, do string) []string {
	node, toControl := strings.CutPrefix(f.what, linkControl)
	prefixes := []string{controlAddr}
	if !toControl {
		node, prefixes = "n2", nil
		for _, a := range c.pods["n1"] {
			bits := 24
			if a.Is6() {
				bits = 64
			}
			prefixes = append(prefixes, netip.PrefixFrom(a, bits).Masked().String())
		}
	}
	return append([]string{"exec", node, "--", "/usr/bin/env", roleEnv + "=1", c.self, do}, prefixes...)
}

// cutTable is the one whose rules cut a link. Both links of a node are never cut at once
// by the same prefixes, so these name it.
func cutTable(prefixes []string) *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyINet, Name: "cut-" + strings.NewReplacer("/", "-", ":", "_").Replace(prefixes[0])}
}

// probeCut drops what comes from the prefixes, in a node's network namespace.
func probeCut(prefixes []string) error {
	c := &nftables.Conn{}
	table := c.AddTable(cutTable(prefixes))
	chain := c.AddChain(&nftables.Chain{Name: "rule", Table: table, Hooknum: nftables.ChainHookPrerouting, Type: nftables.ChainTypeFilter, Priority: nftables.ChainPriorityRaw})
	for _, text := range prefixes {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return err
		}
		protocol, offset := byte(unix.NFPROTO_IPV4), uint32(12) // of the source's address
		if p.Addr().Is6() {
			protocol, offset = unix.NFPROTO_IPV6, 8
		}
		bytes := p.Addr().AsSlice()[:p.Bits()/8]
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(bytes))},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: bytes},
			&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop},
		}})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
}

// probeMend takes away what probeCut did.
func probeMend(prefixes []string) error {
	c := &nftables.Conn{}
	c.DelTable(cutTable(prefixes))
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
}

// wholesome waits until everything works: across, back, on one node.
func (c *chaos) wholesome() {
	c.t.Helper()
	echo := func(server string) check {
		return check{Kind: "echo", Addr: server + ".in.svc.cluster.local:8080", Size: 1000}
	}
	fine := func(pod string, list ...check) bool {
		return !slices.ContainsFunc(c.checks("in", pod, list), func(o outcome) bool { return o.Error != "" })
	}
	c.until("enrolled pods connect", func() bool {
		return fine("client", echo("server-n2"), echo("server-n1")) && fine("server-n2", echo("server-n1"))
	})
	c.until("every component is ready", func() bool {
		return !slices.ContainsFunc(c.status().Components, func(o statusComponent) bool { return !o.Ready })
	})
	c.captured("in")
}

// noRaces fails the test if the race detector has found something in a component.
func (c *chaos) noRaces() {
	c.t.Helper()
	for _, name := range []string{"controlplane", "n1/nodeagent", "n1/ztunnel", "n2/nodeagent", "n2/ztunnel"} {
		out, _ := c.command(c.t.Context(), "logs", name).Output()
		if i := strings.Index(string(out), "WARNING: DATA RACE"); i >= 0 {
			c.t.Errorf("%s: %s", name, out[i:min(len(out), i+6000)])
		}
	}
}

// noPlaintext fails the test if a connection between enrolled pods was not encrypted,
// whatever was away then.
func (c *chaos) noPlaintext() {
	c.t.Helper()
	between := c.accessLog(func(l map[string]any) bool {
		return l["src.namespace"] == "in" && l["dst.namespace"] == "in" && l["error"] == nil
	})
	if len(between) == 0 {
		c.t.Error("no connection between enrolled pods is in the access log")
	}
	for _, l := range between {
		if l["connection_security_policy"] != "mutual_tls" {
			c.t.Errorf("in plaintext: %v", l)
			return
		}
	}
}
