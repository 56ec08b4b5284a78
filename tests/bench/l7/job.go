package l7

import (
	"fmt"
	"net/netip"

	"github.com/ambit-mesh/ambit/internal/identity"
)

// Where everything listens. A part of loopback that nothing else uses, so that
// HBONE's own port can be had beside other meshes on the machine.
const (
	waypointHost   = "127.77.0.1"
	envoyHost      = "127.77.0.4"
	envoyHBONEHost = "127.77.0.5"
	hbonePort      = 15008
	controlPort    = 15012
	adminPort      = 15000
	metricsPort    = 15020
	readyPort      = 15021
	// Envoy's listeners; what is spoken inside decides.
	envoyHTTP1, envoyHTTP2 = 15101, 15102
	// Backends in plaintext, which is what tunnels lead to, and in TLS.
	plainHTTP1, plainHTTP2   = 8001, 8002
	secureHTTP1, secureHTTP2 = 9001, 9002
)

var (
	// backendHosts have one endpoint each: the two sides of a split.
	backendHosts = [2]netip.Addr{netip.MustParseAddr("127.77.0.2"), netip.MustParseAddr("127.77.0.3")}
	clientHost   = netip.MustParseAddr("127.77.0.9")
	serviceVIP   = netip.MustParseAddr("10.77.0.1")
)

const trustDomain = "cluster.local"

func account(name string) identity.ID {
	return identity.ID{TrustDomain: trustDomain, Namespace: "app", ServiceAccount: name}
}

// Protocols of the rows.
const (
	http1Row = "HTTP/1.1"
	http2Row = "HTTP/2"
)

// row is one load.
type row struct {
	proto string
	size  int // bytes of a response's body
	rules int
}

func (r row) String() string {
	return fmt.Sprintf("%s, %d KB, %d rules", r.proto, r.size>>10, r.rules)
}

var (
	tables = []int{10, 10_000}
	sizes  = []int{1 << 10, 100 << 10}
)

// rows of a route table.
func rows(rules int) (out []row) {
	for _, proto := range []string{http1Row, http2Row} {
		for _, size := range sizes {
			out = append(out, row{proto, size, rules})
		}
	}
	return out
}

// prefix is the path of a rule. Every rule matches its prefix and a header, splits
// 90 to 10, and retries twice.
func prefix(rule int) string { return fmt.Sprintf("/r%05d", rule) }

const (
	matchHeader, matchValue = "x-bench", "yes"
	weightFirst, weightRest = 90, 10
	retries                 = 2
	// connections of a load, one request at a time on each.
	connections = 64
)
