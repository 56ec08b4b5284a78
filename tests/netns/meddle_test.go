package netns_test

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// meddle makes a node's network do to packets for an IPv4 address and port what it
// should not: lose them, or, with another address, deliver them there. Only those
// over UDP if that is said.
func (m *mesh) meddle(node, addr, elsewhere string, only ...string) {
	m.t.Helper()
	self, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	args := append([]string{"exec", node, "--", "/usr/bin/env", roleEnv + "=1", self, "meddle", addr, elsewhere}, only...)
	out, err := m.command(m.t.Context(), args...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("meddle with %s on %s: %v\n%s", addr, node, err, out)
	}
}

// probeMeddle adds the rule, in a node's network namespace.
func probeMeddle(args []string) error {
	at, err := netip.ParseAddrPort(args[0])
	if err != nil {
		return err
	}
	c := &nftables.Conn{}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "meddle-" + strconv.Itoa(os.Getpid())})
	verdict := []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	chain := &nftables.Chain{Name: "rule", Table: table, Hooknum: nftables.ChainHookPrerouting, Type: nftables.ChainTypeFilter, Priority: nftables.ChainPriorityRaw}
	if args[1] != "" {
		to, err := netip.ParseAddr(args[1])
		if err != nil {
			return err
		}
		chain.Type, chain.Priority = nftables.ChainTypeNAT, nftables.ChainPriorityNATDest
		verdict = []expr.Any{
			&expr.Immediate{Register: 1, Data: to.AsSlice()},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegAddrMax: 1},
		}
	}
	c.AddChain(chain)
	is := func(base expr.PayloadBase, offset uint32, want []byte) []expr.Any {
		return []expr.Any{
			&expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: uint32(len(want))},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: want},
		}
	}
	var rule []expr.Any
	if len(args) > 2 && args[2] == "udp" {
		rule = append(rule, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}})
	}
	rule = append(rule, is(expr.PayloadBaseNetworkHeader, 16, at.Addr().AsSlice())...)                        // destination
	rule = append(rule, is(expr.PayloadBaseTransportHeader, 2, binaryutil.BigEndian.PutUint16(at.Port()))...) // and its port
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(rule, verdict...)})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
}
