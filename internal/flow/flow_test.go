package flow

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/internal/admin"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/wds"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Unix(1_700_000_000, 0)

// numbered is a record that is known by its port.
func numbered(n int) *Record {
	return &Record{
		Start: now.Add(time.Duration(n) * time.Second), Reporter: flowpb.Reporter_REPORTER_SOURCE, Verdict: flowpb.Verdict_VERDICT_FORWARDED,
		Protocol: flowpb.Protocol_PROTOCOL_TCP, ServicePort: uint16(n), Service: &wds.Service{Name: "web", Namespace: "shop", Hostname: "web.shop"},
	}
}

// observed is a log that is served over an admin port.
type observed struct {
	*Log
	server *Server
	client flowpb.FlowsClient
}

func serve(t *testing.T, size int) *observed {
	t.Helper()
	o := &observed{Log: NewLog(size)}
	reg := prometheus.NewRegistry()
	o.server = NewServer(o.Log, "n1", reg)
	mux := http.NewServeMux()
	mux.Handle(Path, o.server.Handler())
	srv, err := admin.Listen("127.0.0.1:0", true, mux)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	cc, err := grpc.NewClient("passthrough:///"+srv.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cc.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		if problems, err := promlint.NewWithMetricFamilies(families).Lint(); err != nil || len(problems) > 0 {
			t.Error(problems, err)
		}
	})
	o.client = flowpb.NewFlowsClient(cc)
	return o
}

// all reads a stream that does not follow.
func (o *observed) all(t *testing.T, req *flowpb.ObserveRequest) (ports []uint32) {
	t.Helper()
	stream, err := o.client.Observe(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return ports
		}
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, resp.GetRecord().GetService().GetPort())
	}
}

func wantPorts(t *testing.T, got []uint32, want ...uint32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("records %v, want %v", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("records %v, want %v", got, want)
		}
	}
}

func TestThePastIsKeptUpToABound(t *testing.T) {
	o := serve(t, chunkSize)
	// The first ones make room for the others.
	for n := range chunkSize + 2 {
		o.Append(numbered(n + 1 - chunkSize + 4))
	}
	if n := len(o.all(t, &flowpb.ObserveRequest{})); n != chunkSize {
		t.Errorf("%d records are kept, want %d", n, chunkSize)
	}
	wantPorts(t, o.all(t, &flowpb.ObserveRequest{Since: timestamppb.New(now.Add(3 * time.Second))}), 3, 4, 5, 6)
	wantPorts(t, o.all(t, &flowpb.ObserveRequest{Last: 2}), 5, 6)
	wantPorts(t, o.all(t, &flowpb.ObserveRequest{Since: timestamppb.New(now.Add(4 * time.Second))}), 4, 5, 6)
	wantPorts(t, o.all(t, &flowpb.ObserveRequest{Include: []*flowpb.Filter{{Ports: []uint32{3, 5, 6}}}, Last: 2}), 5, 6)
	wantPorts(t, o.all(t, &flowpb.ObserveRequest{Exclude: []*flowpb.Filter{{Ports: []uint32{5}}}, Last: 3}), 3, 4, 6)
}

// await waits until an observer is there.
func (o *observed) await(t *testing.T) {
	t.Helper()
	for !o.Observed() {
		if t.Context().Err() != nil {
			t.Fatal("nobody observes")
		}
		runtime.Gosched()
	}
}

func TestFollowing(t *testing.T) {
	o := serve(t, 64)
	o.Append(numbered(1))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := o.client.Observe(ctx, &flowpb.ObserveRequest{Last: 10, Follow: true, Opened: true})
	if err != nil {
		t.Fatal(err)
	}
	next := func(want uint32, event flowpb.FlowRecord_Event) {
		t.Helper()
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if r := resp.GetRecord(); r.GetService().GetPort() != want || r.GetEvent() != event || r.GetNode() != "n1" {
			t.Fatalf("%v, want %d %s", r, want, event)
		}
	}
	next(1, flowpb.FlowRecord_EVENT_ENDED)
	opened := numbered(2)
	opened.Opened = true
	o.Append(opened)
	o.Append(numbered(3))
	next(2, flowpb.FlowRecord_EVENT_OPENED)
	next(3, flowpb.FlowRecord_EVENT_ENDED)
	cancel()
	if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
		t.Error(err)
	}
	// Opened connections are told to those who ask only.
	wantPorts(t, o.all(t, &flowpb.ObserveRequest{}), 1, 3)
}

// An observer that does not read loses records and learns how many; who appends
// never waits.
func TestSlowObserver(t *testing.T) {
	o := serve(t, chunkSize)
	stream, err := o.client.Observe(t.Context(), &flowpb.ObserveRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	o.await(t)
	// Until the transport is full; the text makes it so soon.
	const records = 20_000
	r := numbered(1)
	r.Reason = strings.Repeat("x", 1000)
	for range records {
		o.Append(r)
	}
	last := numbered(2)
	o.Append(last)
	var got, lost uint64
	for {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		lost += resp.GetLost().GetCount()
		if resp.GetRecord() != nil {
			got++
		}
		if resp.GetRecord().GetService().GetPort() == 2 {
			break
		}
	}
	if got+lost > records+1 || lost == 0 || float64(lost) != testutil.ToFloat64(o.server.lost) {
		t.Errorf("%d given and %d lost of %d, counted %v", got, lost, records+1, testutil.ToFloat64(o.server.lost))
	}
	// The stream may have begun with any of them, but nothing is lost in between.
	if got+lost < chunkSize {
		t.Errorf("%d given and %d lost", got, lost)
	}
}

// Records of many writers all come, each once.
func TestConcurrentWriters(t *testing.T) {
	const writers, each = 8, 500
	o := serve(t, 8192)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := range each {
				o.Append(numbered(1 + w*each + n))
			}
		})
	}
	wg.Wait()
	seen := map[uint32]bool{}
	for _, p := range o.all(t, &flowpb.ObserveRequest{}) {
		if seen[p] {
			t.Fatalf("record %d came twice", p)
		}
		seen[p] = true
	}
	if len(seen) != writers*each {
		t.Errorf("%d records, want %d", len(seen), writers*each)
	}
}

func TestBadRequests(t *testing.T) {
	o := serve(t, 4)
	for name, req := range map[string]*flowpb.ObserveRequest{
		"protocol": {Include: []*flowpb.Filter{{Protocols: []string{"smtp"}}}},
		"status":   {Exclude: []*flowpb.Filter{{Statuses: []*flowpb.StatusRange{{From: 2, To: 1}}}}},
		"since":    {Since: &timestamppb.Timestamp{Nanos: -1}},
	} {
		stream, err := o.client.Observe(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// full is a record with everything in it.
func full() *Record {
	in, out := trace.Begin(), trace.Begin()
	return &Record{
		Start: now, Duration: 1500 * time.Millisecond, Reporter: flowpb.Reporter_REPORTER_WAYPOINT, Protocol: flowpb.Protocol_PROTOCOL_TCP,
		Verdict: flowpb.Verdict_VERDICT_DENIED, Encrypted: true, TunnelIn: in, TunnelOut: out, Trace: in.TraceID,
		Source:      End{Workload: &wds.Workload{Name: "web-1", Owner: "web", Namespace: "shop", ServiceAccount: "web", Node: "n1", CanonicalName: "web"}, Identity: identity.ID{TrustDomain: "td", Namespace: "shop", ServiceAccount: "web"}, Address: netip.MustParseAddrPort("10.0.0.1:1234")},
		Destination: End{Workload: &wds.Workload{Name: "cart-1", Owner: "cart", Namespace: "back", CanonicalName: "basket"}, Address: netip.MustParseAddrPort("[fd00::1]:8080")},
		Service:     &wds.Service{Name: "cart", Namespace: "back", Hostname: "cart.back.svc"}, ServicePort: 80,
		Waypoint: "shop/wp", Policy: Policy{Namespace: "back", Name: "only-get", Rule: "0"}, Audits: []Policy{{Namespace: "back", Name: "trial"}},
		Reason: "denied\xff", Flags: "DENY", Sent: 10, Received: 20,
		HTTP: HTTP{Version: flowpb.HTTP_VERSION_HTTP2, Method: "POST", Path: "/api/items", Host: "cart", Status: 403, GRPC: true, GRPCStatus: 7, Route: "HTTPRoute back/cart", Attempts: 1},
	}
}

func TestProto(t *testing.T) {
	r := full()
	p := r.Proto("n1")
	if Address(p.GetDestination()) != r.Destination.Address || Address(p.GetSource()) != r.Source.Address || Address(nil).IsValid() {
		t.Error("addresses are lost")
	}
	if len(p.GetTunnelIn()) != 48 || p.GetTunnelIn() == p.GetTunnelOut() || p.GetTraceId() != r.Trace.String() {
		t.Errorf("%s %s", p.GetTunnelIn(), p.GetTunnelOut())
	}
	if p.GetReason() != "denied\uFFFD" || p.GetSource().GetIdentity() != "spiffe://td/ns/shop/sa/web" || p.GetAudits()[0].GetName() != "trial" || p.GetPolicy().GetRule() != "0" {
		t.Error(p)
	}
	if empty := new(Record).Proto("n1"); empty.GetHttp() != nil || empty.GetPolicy() != nil || empty.GetService() != nil || empty.GetTunnelIn() != "" {
		t.Error(empty)
	}
}

func TestFilters(t *testing.T) {
	r := full().Proto("n2")
	l4 := numbered(443).Proto("n1")
	for line, want := range map[string][2]bool{
		"":                                       {true, true},
		"namespace=shop":                         {true, true},
		"namespace=back":                         {true, false},
		"namespace=nowhere,back":                 {true, false},
		"workload=cart":                          {true, false},
		"workload=back/cart-*":                   {true, false},
		"workload=shop/cart-*":                   {false, false},
		"from=web":                               {true, false},
		"from=shop/web":                          {true, false},
		"from=cart":                              {false, false},
		"from=10.0.0.1":                          {true, false},
		"to=cart":                                {true, false},
		"to=basket":                              {true, false},
		"to=web":                                 {false, true},
		"from=web to=cart":                       {true, false},
		"from=web to=web":                        {false, false},
		"service=cart":                           {true, false},
		"service=cart.back.svc":                  {true, false},
		"service=shop/web":                       {false, true},
		"identity=spiffe://td/ns/shop/*":         {true, false},
		"identity=spiffe://td/ns/shop/sa/we":     {false, false},
		"verdict=denied":                         {true, false},
		"verdict=forwarded,denied":               {true, true},
		"protocol=grpc":                          {true, false},
		"protocol=http2":                         {true, false},
		"protocol=http1":                         {false, false},
		"protocol=tcp":                           {false, true},
		"protocol=websocket":                     {false, false},
		"status=403":                             {true, false},
		"status=4xx":                             {true, false},
		"status=400+":                            {true, false},
		"status=500-599":                         {false, false},
		"status=0":                               {false, false},
		"method=post":                            {true, false},
		"path=/api/":                             {true, false},
		"path=/":                                 {true, false},
		"path=/other":                            {false, false},
		"port=8080":                              {true, false},
		"port=80":                                {true, false},
		"port=443":                               {false, true},
		"encrypted":                              {true, false},
		"unencrypted":                            {false, true},
		"policy=only-get":                        {true, false},
		"policy=back/trial":                      {true, false},
		"policy=shop/trial":                      {false, false},
		"node=n1":                                {false, true},
		"reporter=waypoint":                      {true, false},
		"trace=00000000000000000000000000000001": {false, false},
	} {
		t.Run(line, func(t *testing.T) {
			f, err := Parse(line)
			if err != nil {
				t.Fatal(err)
			}
			for i, rec := range []*flowpb.FlowRecord{r, l4} {
				in, err := NewFilter([]*flowpb.Filter{f}, nil)
				if err != nil {
					t.Fatal(err)
				}
				out, err := NewFilter(nil, []*flowpb.Filter{f})
				if err != nil {
					t.Fatal(err)
				}
				if in.Match(rec) != want[i] || out.Match(rec) == want[i] {
					t.Errorf("record %d: include %t, exclude %t, want %t", i, in.Match(rec), !out.Match(rec), want[i])
				}
			}
		})
	}
}

// A call of several records is wanted when one of them is, unless one is not.
func TestFilterOfACall(t *testing.T) {
	call := []*flowpb.FlowRecord{full().Proto("n2"), numbered(443).Proto("n1")}
	in, _ := Parse("status=403")
	out, _ := Parse("port=443")
	if f, _ := NewFilter([]*flowpb.Filter{in}, nil); !f.MatchAny(call) {
		t.Error("not wanted")
	}
	if f, _ := NewFilter([]*flowpb.Filter{in}, []*flowpb.Filter{out}); f.MatchAny(call) {
		t.Error("wanted")
	}
}

func TestBadFilters(t *testing.T) {
	for line, want := range map[string]string{
		"colour=red":            `colour "red": want one of encrypted, from,`,
		"verdict=maybe":         `verdict "maybe": want one of denied, failed, forwarded, limited`,
		"status=teapot":         `status "teapot": want for example 404`,
		"status=599-500":        `status "599-500": want for example 404`,
		"status=-":              `status "-": want`,
		"port=0":                `port "0": want 1 to 65535`,
		"port=70000":            `port "70000": want 1 to 65535`,
		"from=deploy/web":       `from "deploy/web": want [namespace/]name, such as web`,
		"from=a/b/c":            `from "a/b/c": want [namespace/]name`,
		"from=a*b":              `from "a*b": * can only be at the end`,
		"from=":                 `from "": is empty`,
		"from=a,,b":             `from "": is empty`,
		"identity=shop/web":     `identity "shop/web": want spiffe://`,
		"protocol=smtp":         `protocol "smtp": want one of tcp, udp`,
		"path=api":              `path "api": want the beginning`,
		"trace=1":               `trace "1": want 32`,
		"encrypted=no":          `encrypted "no": takes no value`,
		"encrypted unencrypted": `encrypted and unencrypted: nothing is both`,
		"namespace=a/b":         `namespace "a/b": want a name`,
	} {
		if _, err := Parse(line); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", line, err, want)
		}
	}
}

// FuzzParse looks for filters that panic, when they are read or when they match.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"from=shop/web to=cart-* status=5xx,404,400+ verdict=denied", "encrypted port=80 path=/a method=get", "identity=spiffe://* policy=a/b", "="} {
		f.Add(s)
	}
	records := []*flowpb.FlowRecord{full().Proto("n1"), numbered(1).Proto("n1"), {}}
	f.Fuzz(func(t *testing.T, line string) {
		p, err := Parse(line)
		if err != nil {
			return
		}
		filter, err := NewFilter([]*flowpb.Filter{p}, nil)
		if err != nil {
			t.Fatalf("what was read is refused: %v", err)
		}
		for _, r := range records {
			filter.Match(r)
		}
	})
}

// What a slot held before does not show through.
func TestRecordsAreKeptAsTheyWere(t *testing.T) {
	l := NewLog(1)
	want := full()
	want.TunnelIn = trace.Context{TraceID: want.TunnelIn.TraceID, SpanID: want.TunnelIn.SpanID}
	want.TunnelOut = trace.Context{TraceID: want.TunnelOut.TraceID, SpanID: want.TunnelOut.SpanID}
	var n uint64
	for _, r := range []*Record{want, numbered(1), want} {
		for range chunkSize {
			l.Append(r)
			n++
		}
		var got Record
		if l.read(n-1, &got) != kept {
			t.Fatal("it is gone")
		}
		if !reflect.DeepEqual(&got, r) {
			t.Errorf("got  %+v\nwant %+v", got, r)
		}
	}
}

func TestSizes(t *testing.T) {
	if n := unsafe.Sizeof(slot{}); n > 448 {
		t.Errorf("a slot has %d bytes", n)
	}
	for i := range NewLog(0).chunks {
		if NewLog(0).chunks[i].Load() != nil {
			t.Error("memory for records that nobody has made")
		}
	}
}

func TestClientsTextsAreClipped(t *testing.T) {
	l := NewLog(1)
	r := numbered(1)
	r.HTTP = HTTP{Method: "GET", Path: "/" + strings.Repeat("x", 10_000), Host: strings.Repeat("ü", 5000)}
	l.Append(r)
	var got Record
	if l.read(0, &got) != kept || len(got.HTTP.Path) != maxPath+3 || len(got.HTTP.Host) > maxText+3 {
		t.Errorf("%d %d", len(got.HTTP.Path), len(got.HTTP.Host))
	}
}

func TestAppendAllocatesNothing(t *testing.T) {
	l, r := NewLog(64), full()
	for range chunkSize {
		l.Append(r) // makes the memory that is used again
	}
	if n := testing.AllocsPerRun(100, func() { l.Append(r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	(*Log)(nil).Append(r)
}

func BenchmarkAppend(b *testing.B) {
	b.Run("nobody observes", func(b *testing.B) {
		l, r := NewLog(0), full()
		b.ReportAllocs()
		for b.Loop() {
			l.Append(r)
		}
	})
	b.Run("all cores", func(b *testing.B) {
		l := NewLog(0)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			r := full()
			for pb.Next() {
				l.Append(r)
			}
		})
	})
	b.Run("one observes", func(b *testing.B) {
		l, r := NewLog(0), full()
		l.attach()
		b.ReportAllocs()
		for b.Loop() {
			l.Append(r)
		}
	})
}
