package proxy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ambit-mesh/ambit/internal/wds"
	"github.com/ambit-mesh/ambit/waypoint/internal/frontend"
)

// fieldService is the field of a CONNECT by which the client's node says which host
// outside is meant, as <namespace>/<hostname>: several namespaces may know the same.
const fieldService = "ambit-service"

// resolveOutside finds the host outside that is meant, and holds it against what was
// asked for: the name host, or the address d.asked. An entry is no way to anything else.
func (d *downstream) resolveOutside(meant, host string) (*frontend.Entry, error) {
	e := d.proxy.cfg.Frontends.Key(meant)
	if e == nil || !e.Config.GetExternal() {
		r := refused(503, "destination_not_found", "host "+strconv.Quote(clip(meant))+" is not bound to waypoint "+d.proxy.cfg.Gateway)
		r.early = true
		return nil, r
	}
	svc := d.proxy.cfg.Store.Service(meant)
	if svc == nil {
		r := refused(503, "destination_not_found", "host "+meant+" is not known to waypoint "+d.proxy.cfg.Gateway)
		r.early = true
		return nil, r
	}
	if host != "" && !svc.Passthrough && standsFor(svc.Hostname, host) || host == "" && hasAddress(svc, d.asked.Addr()) {
		return e, nil
	}
	asked := host
	if asked == "" {
		asked = d.asked.Addr().String()
	}
	return nil, refused(400, "http_request_error", strconv.Quote(clip(asked))+" is not a name or an address of "+meant)
}

// standsFor says whether a host is the one of the name, or below it where that is a
// wildcard.
func standsFor(name, host string) bool {
	host = strings.ToLower(host)
	if below, ok := strings.CutPrefix(name, "*"); ok {
		return strings.HasSuffix(host, below) && len(host) > len(below)
	}
	return host == name
}

func hasAddress(svc *wds.Service, a netip.Addr) bool {
	return slices.Contains(svc.VIPs, a) || slices.ContainsFunc(svc.Blocks, func(p netip.Prefix) bool { return p.Contains(a) })
}
