package route

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
)

// Redirect answers a request by another location.
type Redirect struct {
	// Scheme, Hostname and Port are the request's where they are empty.
	Scheme   string
	Hostname string
	Path     PathModifier
	Port     uint16
	// Status is 301, 302, 303, 307 or 308.
	Status int
}

// Location gives the value of the Location field, by the rules at
// HTTPRequestRedirectFilter.Port of the Gateway API: without a port of its own a
// redirect goes to that of its scheme, or else to the port that the request was
// sent to, which is the frontend's and not what Host says. prefix is
// Decision.Prefix. The query is kept.
func (r *Redirect) Location(req *message.Request, port uint16, prefix string) string {
	target := r.Path.apply(req.Path, prefix)
	if !strings.HasPrefix(target, "/") {
		target = "/"
	}
	host := r.Hostname
	if host == "" {
		host = hostOf(req.Authority)
	}
	if host == "" {
		// Without a host a location that begins with two slashes would name one.
		return "/" + strings.TrimLeft(target, "/")
	}
	scheme := r.Scheme
	if scheme == "" {
		scheme = req.Scheme
	}
	if scheme == "" {
		scheme = "http"
	}
	switch {
	case r.Port != 0:
		port = r.Port
	case r.Scheme != "":
		port = wellKnownPort(r.Scheme)
	}
	if port == 0 || port == wellKnownPort(scheme) {
		return scheme + "://" + host + target
	}
	return scheme + "://" + host + ":" + strconv.Itoa(int(port)) + target
}

func wellKnownPort(scheme string) uint16 {
	switch scheme {
	case "http":
		return 80
	case "https":
		return 443
	}
	return 0
}

// hostOf takes the port off an authority. An IPv6 address keeps its brackets.
func hostOf(authority string) string {
	i := strings.LastIndexByte(authority, ':')
	if i < 0 || strings.IndexByte(authority[i:], ']') >= 0 {
		return authority
	}
	return authority[:i]
}

func (c *compiler) redirect(at string, pb *waypoint.Redirect) *Redirect {
	r := &Redirect{
		Scheme: pb.GetScheme(), Hostname: c.hostname(at+".hostname", pb.GetHostname()),
		Path: c.pathModifier(at+".path", pb.GetPath()), Port: c.port(at+".port", pb.GetPort()), Status: int(pb.GetStatus()),
	}
	switch r.Scheme {
	case "", "http", "https":
	default:
		c.problem(at+".scheme", fmt.Sprintf("%q is not known; use http or https", r.Scheme))
	}
	switch r.Status {
	case 0:
		// The default of the Gateway API.
		r.Status = 302
	case 301, 302, 303, 307, 308:
	default:
		c.problem(at+".status", fmt.Sprintf("%d is not a redirect; use 301, 302, 303, 307 or 308", r.Status))
	}
	return r
}

// port reads a port; 0 is none.
func (c *compiler) port(at string, port uint32) uint16 {
	if port > 65535 {
		c.problem(at, fmt.Sprintf("%d is not a port; use 1 to 65535", port))
		return 0
	}
	return uint16(port)
}
