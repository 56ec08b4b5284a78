package capture

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// feature is something the rules need of the kernel.
type feature struct {
	name   string
	config string
	since  string
	chain  nftables.Chain
	rule   []expr.Any
}

func features(table *nftables.Table) []feature {
	filter := nftables.Chain{Name: "f", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityMangle}
	route := nftables.Chain{Name: "r", Table: table, Type: nftables.ChainTypeRoute, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityMangle}
	nat := nftables.Chain{Name: "n", Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest}
	return []feature{
		{"nftables for family inet", "CONFIG_NF_TABLES_INET", "3.14", filter, nil},
		{"route chains for family inet", "CONFIG_NF_TABLES_INET", "5.2", route, nil},
		{"nat chains for family inet", "CONFIG_NFT_NAT", "5.2", nat, nil},
		{"redirect", "CONFIG_NFT_REDIR", "5.2", nat, slices.Concat(isSYN(), redirect(OutboundPort))},
		{"connection marks", "CONFIG_NFT_CT, CONFIG_NF_CONNTRACK_MARK", "3.13", filter, setConnMark()},
		{"tproxy", "CONFIG_NFT_TPROXY", "4.19", filter, slices.Concat(isUDP(), tproxy(InboundPort))},
		{"packet marks", "CONFIG_NF_TABLES", "3.13", route, setMark()},
	}
}

// missingFeatures finds out which features make the rules fail. The namespace is
// the caller's own.
func missingFeatures(conn *nftables.Conn) error {
	var errs []error
	table := &nftables.Table{Name: tableName + "-probe", Family: nftables.TableFamilyINet}
	for _, f := range features(table) {
		conn.AddTable(table)
		chain := conn.AddChain(&f.chain)
		if f.rule != nil {
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: f.rule})
		}
		conn.DelTable(table)
		if err := conn.Flush(); err != nil {
			errs = append(errs, fmt.Errorf("the kernel lacks %s (%s, Linux %s or later): %w", f.name, f.config, f.since, err))
		}
	}
	return errors.Join(errs...)
}
