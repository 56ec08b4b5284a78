package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/identity"
)

// Header fields by which a waypoint says for whom it opens a connection: who the
// client has proved to be, and the address that it came from (RFC 7239).
const (
	fieldSource    = "ambit-source"
	fieldForwarded = "forwarded"
)

// onBehalf takes the client that a waypoint speaks for in place of the waypoint,
// which stays known as the peer. Only a waypoint of this pod is believed, which
// the caller has found out; from anybody else the fields mean nothing.
func (c *connection) onBehalf(fields []hbone.Field) error {
	source, named, err := single(fields, fieldSource)
	if err != nil || !named {
		return err
	}
	id, err := identity.Parse(source)
	if err != nil {
		return fmt.Errorf("field %s: %w", fieldSource, err)
	}
	forwarded, given, err := single(fields, fieldForwarded)
	if err != nil {
		return err
	}
	if given {
		if c.srcAddr, err = parseForwarded(forwarded); err != nil {
			return fmt.Errorf("field %s: %w", fieldForwarded, err)
		}
	}
	c.srcID = id
	return nil
}

// single gives the value of a field that may stand once.
func single(fields []hbone.Field, name string) (value string, found bool, err error) {
	for _, f := range fields {
		if f.Name != name {
			continue
		}
		if found {
			return "", false, fmt.Errorf("field %s: given more than once", name)
		}
		value, found = f.Value, true
	}
	return value, found, nil
}

var errForwarded = errors.New(`want one element with for="<address>:<port>"`)

// parseForwarded reads the for parameter of a single element of RFC 7239, which
// must be an address with a port.
func parseForwarded(s string) (netip.AddrPort, error) {
	var addr netip.AddrPort
	if len(s) > 1024 || strings.Contains(s, ",") {
		return addr, errForwarded
	}
	for part := range strings.SplitSeq(s, ";") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok {
			return netip.AddrPort{}, errForwarded
		}
		if !strings.EqualFold(name, "for") {
			continue
		}
		value, quoted := strings.CutPrefix(value, `"`)
		value, closed := strings.CutSuffix(value, `"`)
		parsed, err := netip.ParseAddrPort(value)
		if addr.IsValid() || quoted != closed || err != nil || parsed.Addr().Zone() != "" || parsed.Port() == 0 {
			return netip.AddrPort{}, errForwarded
		}
		addr = netip.AddrPortFrom(parsed.Addr().Unmap(), parsed.Port())
	}
	if !addr.IsValid() || addr.Addr().IsUnspecified() || addr.Addr().IsMulticast() || addr.Addr().IsLoopback() {
		return netip.AddrPort{}, errForwarded
	}
	return addr, nil
}
