package waypoint_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/testkit/sniff"
)

// blockQUIC makes a pod's network lose what comes to its tunnel port over UDP.
func blockQUIC() error {
	c := &nftables.Conn{}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "no-quic"})
	chain := c.AddChain(&nftables.Chain{Name: "rule", Table: table, Hooknum: nftables.ChainHookPrerouting, Type: nftables.ChainTypeFilter, Priority: nftables.ChainPriorityRaw})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(15008)},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	_, err := fmt.Println("{}")
	return err
}

// Datagrams go to a waypoint and from there to the pod over HTTP/3: the logs of all
// three say so, and on the wire there is nothing of them but QUIC. Those that are larger
// than the path takes do not arrive.
func TestUDPOverHTTP3(t *testing.T) {
	m := use(t)
	m.apply(datagramService("swift", "v1", ""))
	m.untilDatagrams("the service answers", "client", "swift:7000", answeredBy("v1"))
	seen := map[string]func() sniff.Report{"client": m.wiretap("client", "xxxxxxxxxxxxxxxx"), "waypoint": m.wiretap("wp", "xxxxxxxxxxxxxxxx")}
	if got := m.datagrams("client", "swift:7000", 8, 1000); got.Versions["v1"] != 8 {
		t.Errorf("sessions: %+v", got)
	}
	if got := m.datagrams("client", "swift:7000", 2, 20000); !unheard(got) {
		t.Errorf("large datagrams: %+v", got)
	}
	for at, report := range seen {
		r := report()
		if len(r.Found) > 0 || r.QUIC.Protected == 0 || r.QUIC.Foreign > 0 || r.Dropped > 0 {
			t.Errorf("on the wire of the %s: %+v", at, r)
		}
		for flow := range r.OpenFlows {
			if strings.Contains(flow, fmt.Sprint(":", datagramPort)) || strings.Contains(flow, ":7000") {
				t.Errorf("on the wire of the %s: %s", at, flow)
			}
		}
	}
	m.logged(`"protocol":"udp"`, `"tunnel":"h3"`, `"dst.tunnel":"h3"`, `"dst.service":"swift.app.svc`, `"dst.workload":"echo-v1`, `/sa/client"`)
	m.accessLog(`"protocol":"udp"`, `"direction":"outbound"`, `"tunnel":"h3"`, `"dst.service":"swift.app.svc`, `/sa/wp"`)
	m.accessLog(`"protocol":"udp"`, `"direction":"inbound"`, `"tunnel":"h3"`, `/sa/client"`, `/sa/wp"`, fmt.Sprintf(":%d", datagramPort))
}

// Where UDP port 15008 of a waypoint does not get through, its sessions go over HTTP/2,
// and those of others are not the slower for it.
func TestUDPFallsBackToHTTP2(t *testing.T) {
	m := use(t)
	m.apply(datagramService("slow", "v1", ", labels: {ambit-mesh.io/use-waypoint: deaf-wp}") + datagramService("beside", "v1", "") + gateway("app", "deaf-wp", "", "Same"))
	m.until("the waypoint is there", request{URL: "http://127.0.0.1:1/"}, func(response) bool {
		list := m.podsOf("app", "deaf-wp-")
		return len(list) == 1 && list[0].Ready == "1/1"
	})
	m.run("deaf-wp", nil, new(response), "block-quic")
	m.untilDatagrams("the service answers", "client", "slow:7000", answeredBy("v1"))
	m.datagrams("client", "slow:7000", 4, 100) // sessions of few datagrams, which end soon
	pod := m.names("deaf-wp")[0]
	m.lineOf([]string{`"protocol":"udp"`, `"tunnel":"h2"`, `"dst.tunnel":"h3"`, `"dst.service":"slow.app.svc`}, []string{pod, "-n", "app"})
	m.accessLog(`"protocol":"udp"`, `"direction":"outbound"`, `"tunnel":"h2"`, `"dst.service":"slow.app.svc`)
	m.untilDatagrams("another service answers", "client", "beside:7000", answeredBy("v1"))
	m.logged(`"protocol":"udp"`, `"tunnel":"h3"`, `"dst.service":"beside.app.svc`)
}

// A waypoint whose owner wants HTTP/2 is reached, and reaches others, over HTTP/2; then
// large datagrams pass.
func TestUDPOverHTTP2(t *testing.T) {
	m := use(t)
	plain := strings.Replace(gateway("app", "plain-wp", "", "Same"), "spec:\n", "spec:\n  infrastructure: {annotations: {ambit-mesh.io/transport: h2}}\n", 1)
	m.apply(datagramService("large", "v1", ", labels: {ambit-mesh.io/use-waypoint: plain-wp}") + plain)
	m.untilDatagrams("the service answers", "client", "large:7000", answeredBy("v1"))
	if got := m.datagrams("client", "large:7000", 2, 20000); got.Versions["v1"] != 2 {
		t.Errorf("large datagrams: %+v", got)
	}
	m.lineOf([]string{`"protocol":"udp"`, `"tunnel":"h2"`, `"dst.tunnel":"h2"`, `"dst.service":"large.app.svc`}, []string{m.names("plain-wp")[0], "-n", "app"})
}
