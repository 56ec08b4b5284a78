package capture

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// From linux/netfilter/nf_tables.h.
const nftaChainFlags = 10

// shape is what the kernel says our table holds, without what differs from
// namespace to namespace (handles, counters). It is compared with the shape that
// the same rules have in a namespace of our own: the kernel's encoding is not
// quite that of the request, and varies with its version.
type shape struct {
	flags  []byte
	chains map[string]chainShape
}

type chainShape struct {
	// attrs are the chain's hook, priority, type, policy and flags.
	attrs []byte
	// rules are the expressions of each rule, in order.
	rules [][]byte
}

// diff names what is missing or other in s than in want; empty if they are equal.
func (s *shape) diff(want *shape) []string {
	if s == nil {
		return []string{"table " + tableName}
	}
	var names []string
	if !bytes.Equal(s.flags, want.flags) {
		names = append(names, "flags of table "+tableName)
	}
	for name, w := range want.chains {
		got, ok := s.chains[name]
		switch {
		case !ok:
			names = append(names, "chain "+name)
		case !bytes.Equal(got.attrs, w.attrs):
			names = append(names, "hook of chain "+name)
		case !slices.EqualFunc(got.rules, w.rules, bytes.Equal):
			names = append(names, "rules of chain "+name)
		}
	}
	for name := range s.chains {
		if _, ok := want.chains[name]; !ok {
			names = append(names, "foreign chain "+name)
		}
	}
	slices.Sort(names)
	return names
}

// replaceTable puts the rules of a phase in place of whatever the table holds,
// in one transaction: no packet sees anything in between.
func replaceTable(conn *nftables.Conn, p target) error {
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	conn.AddTable(table) // so that there is one to delete
	conn.DelTable(table)
	conn.AddTable(table)
	for _, c := range ruleset(p) {
		added := conn.AddChain(&c.Chain)
		for _, exprs := range c.rules {
			conn.AddRule(&nftables.Rule{Table: table, Chain: added, Exprs: exprs})
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("nftables table inet %s: %w", tableName, err)
	}
	return nil
}

func deleteTable(conn *nftables.Conn) error { return deleteNamed(conn, tableName) }

// readNamed gives the shape of a table of ours, nil if there is no such table.
func readNamed(conn *netlink.Conn, table string) (*shape, error) {
	tables, err := dump(conn, unix.NFT_MSG_GETTABLE)
	if err != nil {
		return nil, err
	}
	var s *shape
	for _, a := range tables {
		if a.text(unix.NFTA_TABLE_NAME) == table {
			s = &shape{flags: a.pick(unix.NFTA_TABLE_FLAGS), chains: make(map[string]chainShape)}
		}
	}
	if s == nil {
		return nil, nil
	}
	chains, err := dump(conn, unix.NFT_MSG_GETCHAIN)
	if err != nil {
		return nil, err
	}
	for _, a := range chains {
		if a.text(unix.NFTA_CHAIN_TABLE) == table {
			s.chains[a.text(unix.NFTA_CHAIN_NAME)] = chainShape{
				attrs: a.pick(unix.NFTA_CHAIN_HOOK, unix.NFTA_CHAIN_TYPE, unix.NFTA_CHAIN_POLICY, nftaChainFlags),
			}
		}
	}
	rules, err := dump(conn, unix.NFT_MSG_GETRULE, netlink.Attribute{Type: unix.NFTA_RULE_TABLE, Data: []byte(table + "\x00")})
	if err != nil {
		return nil, err
	}
	for _, a := range rules {
		name := a.text(unix.NFTA_RULE_CHAIN)
		if c, ok := s.chains[name]; ok && a.text(unix.NFTA_RULE_TABLE) == table {
			c.rules = append(c.rules, a.pick(unix.NFTA_RULE_EXPRESSIONS))
			s.chains[name] = c
		}
	}
	return s, nil
}

// attrs are the attributes of one object, in the kernel's order.
type attrs []netlink.Attribute

// text gives a string attribute without its terminator.
func (a attrs) text(typ uint16) string {
	for _, x := range a {
		if x.Type == typ {
			return string(bytes.TrimRight(x.Data, "\x00"))
		}
	}
	return ""
}

// pick joins the attributes of the given types, each with its type.
func (a attrs) pick(types ...uint16) []byte {
	var out []byte
	for _, x := range a {
		if slices.Contains(types, x.Type) {
			out = append(out, byte(x.Type>>8), byte(x.Type))
			out = append(out, x.Data...)
		}
	}
	return out
}

// dump lists nftables objects of family inet.
func dump(conn *netlink.Conn, message int, filter ...netlink.Attribute) ([]attrs, error) {
	data, err := netlink.MarshalAttributes(filter)
	if err != nil {
		return nil, err
	}
	header := []byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}
	replies, err := conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | message),
			Flags: netlink.Request | netlink.Dump,
		},
		Data: append(header, data...),
	})
	if err != nil {
		return nil, fmt.Errorf("read nftables: %w", err)
	}
	out := make([]attrs, 0, len(replies))
	for _, r := range replies {
		if len(r.Data) < len(header) {
			return nil, errors.New("read nftables: short reply")
		}
		a, err := netlink.UnmarshalAttributes(r.Data[len(header):])
		if err != nil {
			return nil, fmt.Errorf("read nftables: %w", err)
		}
		if r.Data[0] != unix.NFPROTO_INET {
			continue
		}
		for i := range a {
			a[i].Type &^= netlink.Nested | netlink.NetByteOrder
		}
		out = append(out, a)
	}
	return out, nil
}
