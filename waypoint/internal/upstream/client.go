package upstream

import (
	"net/netip"

	"github.com/ambit-mesh/ambit/internal/identity"
)

// Client is on whose behalf a connection is made.
type Client struct {
	ID identity.ID
	// Address of the client; its port does not tell clients apart.
	Address netip.AddrPort
	// Host and To are what it means of a host outside of the mesh: the name, where a
	// wildcard stands for it, and the address, where connections go as they are
	// addressed.
	Host string
	To   netip.AddrPort
}

// clientKey is what connections may be shared by.
type clientKey struct {
	id   identity.ID
	addr netip.Addr
	host string
	to   netip.AddrPort
	tls  *originated // over which requests go; nil for none
}

func (c *Client) key(o *originated) clientKey {
	return clientKey{c.ID, c.Address.Addr(), c.Host, c.To, o}
}
