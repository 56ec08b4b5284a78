package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Attributes of linux/netfilter/nfnetlink_conntrack.h.
const (
	ctGet         = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1 // IPCTNL_MSG_CT_GET
	ctTupleOrig   = 1
	ctTupleReply  = 2
	ctTupleIP     = 1
	ctTupleProto  = 2
	ctIPv4Src     = 1
	ctIPv4Dst     = 2
	ctIPv6Src     = 3
	ctIPv6Dst     = 4
	ctProtoNum    = 1
	ctProtoSrc    = 2
	ctProtoDst    = 3
	nfnetlinkSize = 4
)

// Conntrack asks the kernel where redirected datagrams of a namespace were going:
// unlike TCP, a UDP socket has no option for that. Safe for concurrent use.
type Conntrack struct {
	mu   sync.Mutex // one question at a time
	conn *netlink.Conn
}

// OpenConntrack opens the question line of a namespace. Close it.
func OpenConntrack(ns *Namespace) (*Conntrack, error) {
	var conn *netlink.Conn
	err := ns.WithFD(func(fd int) (err error) {
		conn, err = netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: fd})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("conntrack netlink (CONFIG_NF_CT_NETLINK): %w", err)
	}
	return &Conntrack{conn: conn}, nil
}

// Close closes the line.
func (c *Conntrack) Close() error { return c.conn.Close() }

// ErrNoFlow is a datagram of which the kernel remembers nothing.
var ErrNoFlow = errors.New("no such flow")

// OriginalUDP gives the destination that a datagram from client had before it was
// redirected to local.
func (c *Conntrack) OriginalUDP(client, local netip.AddrPort) (netip.AddrPort, error) {
	body, err := replyTuple(local, client)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("conntrack: %w", err)
	}
	c.mu.Lock()
	// The kernel marks its one answer as one of many without ever saying that it was
	// the last; the acknowledgement behind it does.
	replies, err := c.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: ctGet, Flags: netlink.Request | netlink.Acknowledge}, Data: body,
	})
	c.mu.Unlock()
	switch {
	case errors.Is(err, unix.ENOENT):
		return netip.AddrPort{}, fmt.Errorf("conntrack: %s to %s: %w", client, local, ErrNoFlow)
	case err != nil:
		return netip.AddrPort{}, fmt.Errorf("conntrack: %w", err)
	}
	for _, r := range replies {
		if dst, ok := originalOf(r.Data); ok && r.Header.Type != netlink.Error {
			return dst, nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("conntrack: %s to %s: %w", client, local, ErrNoFlow)
}

// replyTuple describes a UDP flow by the direction of its answers.
func replyTuple(src, dst netip.AddrPort) ([]byte, error) {
	family, srcType, dstType := byte(unix.AF_INET), uint16(ctIPv4Src), uint16(ctIPv4Dst)
	if src.Addr().Is6() {
		family, srcType, dstType = unix.AF_INET6, ctIPv6Src, ctIPv6Dst
	}
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	ae.Nested(ctTupleReply, func(t *netlink.AttributeEncoder) error {
		t.Nested(ctTupleIP, func(ip *netlink.AttributeEncoder) error {
			ip.Bytes(srcType, src.Addr().AsSlice())
			ip.Bytes(dstType, dst.Addr().AsSlice())
			return nil
		})
		t.Nested(ctTupleProto, func(p *netlink.AttributeEncoder) error {
			p.ByteOrder = binary.BigEndian
			p.Uint8(ctProtoNum, unix.IPPROTO_UDP)
			p.Uint16(ctProtoSrc, src.Port())
			p.Uint16(ctProtoDst, dst.Port())
			return nil
		})
		return nil
	})
	attrs, err := ae.Encode()
	if err != nil {
		return nil, err
	}
	return append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attrs...), nil
}

// originalOf reads the destination of a flow's first direction.
func originalOf(message []byte) (netip.AddrPort, bool) {
	if len(message) < nfnetlinkSize {
		return netip.AddrPort{}, false
	}
	ad, err := netlink.NewAttributeDecoder(message[nfnetlinkSize:])
	if err != nil {
		return netip.AddrPort{}, false
	}
	var addr netip.Addr
	var port uint16
	for ad.Next() {
		if ad.Type() != ctTupleOrig {
			continue
		}
		ad.Nested(func(t *netlink.AttributeDecoder) error {
			for t.Next() {
				switch t.Type() {
				case ctTupleIP:
					t.Nested(func(ip *netlink.AttributeDecoder) error {
						for ip.Next() {
							if ip.Type() == ctIPv4Dst || ip.Type() == ctIPv6Dst {
								addr, _ = netip.AddrFromSlice(ip.Bytes())
							}
						}
						return nil
					})
				case ctTupleProto:
					t.Nested(func(p *netlink.AttributeDecoder) error {
						p.ByteOrder = binary.BigEndian
						for p.Next() {
							if p.Type() == ctProtoDst {
								port = p.Uint16()
							}
						}
						return nil
					})
				}
			}
			return nil
		})
	}
	return netip.AddrPortFrom(addr.Unmap(), port), ad.Err() == nil && addr.IsValid() && port != 0
}
