package proxy

import (
	"bytes"
	"io"
	"net/netip"
	"regexp"
	"testing"
	"time"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/internal/flow"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/wds"
)

func lineRecord() *flow.Record {
	return &flow.Record{
		Duration: 1500 * time.Microsecond, Verdict: flowpb.Verdict_VERDICT_FORWARDED, Received: 1024,
		Source:      flow.End{Workload: &wds.Workload{Name: "web-1", Namespace: "shop"}, Identity: identity.ID{TrustDomain: "td", Namespace: "shop", ServiceAccount: "web"}, Address: netip.MustParseAddrPort("10.0.0.1:1234")},
		Destination: flow.End{Workload: &wds.Workload{Name: "cart-1", Namespace: "back"}, Address: netip.MustParseAddrPort("[fd00::1]:80")},
		Service:     &wds.Service{Hostname: "cart.back.svc"}, ServicePort: 80, Policy: flow.Policy{Namespace: "back", Name: "only", Rule: "0"},
		Trace: trace.TraceID{1, 2}, HTTP: flow.HTTP{Method: "GET", Path: "/a\"b", Host: "cart", Status: 200, Route: "HTTPRoute back/cart", Attempts: 2, Mirrors: []string{"back/shadow"}},
	}
}

func TestLine(t *testing.T) {
	var out bytes.Buffer
	log, flush := telemetry.NewAccessLog(&out)
	p := &Proxy{cfg: Config{Access: log}}
	for range 2 {
		p.log(lineRecord(), transports{})
	}
	flush()
	const want = `{"level":"info","time":"","logger":"access","msg":"request complete","src.addr":"10.0.0.1:1234","src.workload":"web-1","src.namespace":"shop",` +
		`"src.identity":"spiffe://td/ns/shop/sa/web","dst.service":"cart.back.svc","dst.port":80,"dst.addr":"[fd00::1]:80","dst.workload":"cart-1","dst.namespace":"back",` +
		`"method":"GET","path":"/a\"b","host":"cart","status":200,"route":"HTTPRoute back/cart","attempts":2,"mirror":"back/shadow","bytes_sent":0,"bytes_recv":1024,"duration":"1.5ms",` +
		`"policy":"only","policy.namespace":"back","policy.rule":"0","trace_id":"01020000000000000000000000000000"}` + "\n"
	got := regexp.MustCompile(`"time":"[^"]*"`).ReplaceAllString(out.String(), `"time":""`)
	if got != want+want {
		t.Errorf("got  %s\nwant %s", got, want+want)
	}
}

func BenchmarkLine(b *testing.B) {
	log, flush := telemetry.NewAccessLog(io.Discard)
	defer flush()
	p := &Proxy{cfg: Config{Access: log}}
	r := lineRecord()
	b.ReportAllocs()
	for b.Loop() {
		p.log(r, transports{})
	}
}
