package main

import (
	"fmt"
	"net/netip"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// relayMark keeps a relay's own connections from being redirected to it.
const relayMark = 0xbe

// marked sets the mark on a socket.
func marked(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, relayMark) }); cerr != nil {
		return cerr
	}
	return err
}

// redirect sends the pod's connections to a port to the relay, by the rule that
// any transparent proxy uses.
func redirect(port uint16, listen string) error {
	to, err := netip.ParseAddrPort(listen)
	if err != nil {
		return err
	}
	nft := &nftables.Conn{}
	table := nft.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: fmt.Sprintf("relay-%d", port)})
	chain := nft.AddChain(&nftables.Chain{Name: "output", Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest})
	nft.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(relayMark)},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(to.Port())},
		&expr.Redir{RegisterProtoMin: 1},
	}})
	if err := nft.Flush(); err != nil {
		return fmt.Errorf("redirect port %d: %w", port, err)
	}
	return nil
}
