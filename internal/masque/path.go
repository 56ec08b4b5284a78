package masque

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

const (
	// Protocol is the :protocol of the extended CONNECT (RFC 9298 section 3.4).
	Protocol = "connect-udp"
	// CapsuleField says that the stream carries capsules (RFC 9297 section 3.4).
	CapsuleField = "capsule-protocol"
	// CapsuleValue is its value: true.
	CapsuleValue = "?1"
	// BatchField says, in a request and in its answer, that its sender reads
	// payloads of context 2.
	BatchField = "ambit-datagram-batch"
	// BatchValue is its value.
	BatchValue = "2"

	pathPrefix = "/.well-known/masque/udp/"
)

// Path is where datagrams to a target are asked for: the default template of
// RFC 9298 section 2.
func Path(target netip.AddrPort) string {
	// Colons have to be escaped in an expansion of the template.
	return pathPrefix + strings.ReplaceAll(target.Addr().String(), ":", "%3A") + "/" + strconv.Itoa(int(target.Port())) + "/"
}

var errPath = errors.New("path: want " + pathPrefix + "<host>/<port>/")

// ParsePath gives the target of a path as host:port.
func ParsePath(path string) (string, error) {
	rest, ok := strings.CutPrefix(path, pathPrefix)
	if !ok || len(rest) > 512 {
		return "", errPath
	}
	host, rest, ok := strings.Cut(rest, "/")
	port, end, closed := strings.Cut(rest, "/")
	if !ok || !closed || end != "" {
		return "", errPath
	}
	host, err := url.PathUnescape(host)
	if err != nil || host == "" || strings.ContainsAny(host, "/[]@ \x00") {
		return "", errPath
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '+' {
		return "", errPath
	}
	return net.JoinHostPort(host, port), nil
}
