package http1

import (
	"strings"

	"github.com/ambit-mesh/ambit/internal/message"
)

// validAuthority checks host[:port], RFC 9110 section 4.2 without userinfo. Nothing
// that a name of DNS or an address cannot have is let through, whatever else RFC
// 3986 would allow: what is here chooses routes.
func validAuthority(s string) bool {
	if s != "" && s[0] == '[' {
		i := strings.IndexByte(s, ']')
		if i < 3 || !only(s[1:i], inAddr) {
			return false
		}
		if i+1 == len(s) {
			return true
		}
		if s[i+1] != ':' {
			return false
		}
		return validPort(s[i+2:])
	}
	host, port, found := strings.Cut(s, ":")
	return host != "" && only(host, inName) && (!found || validPort(port))
}

func validPort(s string) bool {
	if s == "" || len(s) > 5 {
		return false
	}
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n <= 65535
}

// hasPort reports whether a valid authority has a port.
func hasPort(s string) bool { return strings.LastIndexByte(s, ':') > strings.LastIndexByte(s, ']') }

// setTarget takes apart the target, RFC 9112 section 3.2, whose characters have
// been checked, and Host.
func setTarget(req *message.Request, target string, sp *special) *fault {
	switch {
	case sp.hosts > 1:
		return malformed("more than one Host")
	case sp.hosts == 0 && req.Version != message.HTTP10:
		return malformed("no Host")
	case sp.hosts == 1 && !validAuthority(sp.host):
		// Empty, too: RFC 9110 section 4.2.1 has recipients refuse an empty host.
		return malformed("invalid Host")
	}
	req.Scheme, req.Authority = "http", sp.host
	switch {
	case req.Method == "CONNECT":
		if !validAuthority(target) || !hasPort(target) {
			return malformed("target of CONNECT is not host:port")
		}
		req.Authority = target
		return nil
	case target[0] == '/':
		req.Path = target
		return nil
	case target == "*":
		if req.Method != "OPTIONS" {
			return malformed("target * without OPTIONS")
		}
		req.Path = target
		return nil
	}
	return setAbsolute(req, target)
}

// setAbsolute takes apart a target in absolute form. RFC 9112 section 3.2.2: its
// host is the one that counts, whatever Host says.
func setAbsolute(req *message.Request, target string) *fault {
	scheme, rest, ok := strings.Cut(target, "://")
	switch {
	case ok && sameFold(scheme, "http"):
		req.Scheme = "http"
	case ok && sameFold(scheme, "https"):
		req.Scheme = "https"
	default:
		return malformed("target in no known form")
	}
	i := strings.IndexAny(rest, "/?")
	if i < 0 {
		i = len(rest)
	}
	if !validAuthority(rest[:i]) {
		return malformed("invalid host in the target")
	}
	req.Authority, req.Path = rest[:i], rest[i:]
	switch {
	case req.Path == "" && req.Method == "OPTIONS":
		req.Path = "*" // RFC 9112 section 3.2.4
	case req.Path == "" || req.Path[0] == '?':
		req.Path = "/" + req.Path
	}
	return nil
}
