package stats

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/trace"
	"github.com/ambit-mesh/ambit/internal/wds"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func key() Key {
	return Key{
		Source:      &wds.Workload{Name: "web-1", Owner: "web", Namespace: "shop", CanonicalName: "web", CanonicalRevision: "v1", Cluster: "c", Region: "r", Zone: "z"},
		Destination: &wds.Workload{Name: "cart-1", Owner: "cart", Namespace: "shop", CanonicalName: "cart", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}},
		SourceID:    identity.ID{TrustDomain: "td", Namespace: "shop", ServiceAccount: "web"},
		Service:     &wds.Service{Name: "cart", Namespace: "shop", Hostname: "cart.shop.svc"},
		Code:        200,
	}
}

func gathered(t *testing.T, g prometheus.Gatherer, name string) *dto.MetricFamily {
	t.Helper()
	all, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			return f
		}
	}
	t.Fatalf("there is no metric %s", name)
	return nil
}

func TestLabels(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := New(reg, Config{Istio: true})
	k := key()
	k.Protocol, k.GRPCStatus, k.Flags = GRPC, 14, "UF"
	m.Record(k, Observation{Duration: 20 * time.Millisecond, RequestBytes: 10, ResponseBytes: 1000})
	for _, name := range []string{"ambit_requests_total", "istio_requests_total"} {
		var got []string
		for _, l := range gathered(t, reg, name).GetMetric()[0].GetLabel() {
			got = append(got, l.GetName()+"="+l.GetValue())
		}
		want := "connection_security_policy=mutual_tls destination_app=cart destination_canonical_revision=unknown destination_canonical_service=cart " +
			"destination_cluster=unknown destination_principal=unknown destination_region=unknown destination_service=cart.shop.svc " +
			"destination_service_name=cart destination_service_namespace=shop destination_version=unknown destination_workload=cart " +
			"destination_workload_namespace=shop destination_zone=unknown grpc_response_status=14 reporter=waypoint request_protocol=grpc response_code=200 " +
			"response_flags=UF source_app=web source_canonical_revision=v1 source_canonical_service=web source_cluster=c " +
			"source_principal=spiffe://td/ns/shop/sa/web source_region=r source_version=v1 source_workload=web source_workload_namespace=shop source_zone=z"
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s\n%s\nwant\n%s", name, s, want)
		}
	}
	for name, want := range map[string]float64{
		"ambit_request_duration_seconds": .02, "istio_request_duration_milliseconds": 20,
		"ambit_request_bytes": 10, "istio_response_bytes": 1000,
	} {
		if got := gathered(t, reg, name).GetMetric()[0].GetHistogram().GetSampleSum(); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestNamesAreSound(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := New(reg, Config{Istio: true})
	m.Record(key(), Observation{})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		// Its unit is what others chose.
		if p.Metric != "istio_request_duration_milliseconds" {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	off := prometheus.NewRegistry()
	New(off, Config{}).Record(key(), Observation{})
	if n, err := testutil.GatherAndCount(off, "istio_requests_total"); n != 0 || err != nil {
		t.Errorf("%d series with Istio's names that nobody asked for, %v", n, err)
	}
}

func TestSampledRequestsAreExemplars(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := New(reg, Config{})
	c := trace.Begin()
	m.Record(key(), Observation{Trace: c})
	if gathered(t, reg, "ambit_requests_total").GetMetric()[0].GetCounter().GetExemplar() != nil {
		t.Error("an exemplar that leads to no trace")
	}
	c.Decision = trace.Sampled
	m.Record(key(), Observation{Trace: c, Duration: time.Millisecond})
	e := gathered(t, reg, "ambit_requests_total").GetMetric()[0].GetCounter().GetExemplar()
	if e == nil || e.GetLabel()[0].GetValue() != c.TraceID.String() {
		t.Errorf("exemplar %v, want %s", e, c.TraceID)
	}
	found := false
	for _, b := range gathered(t, reg, "ambit_request_duration_seconds").GetMetric()[0].GetHistogram().GetBucket() {
		found = found || b.GetExemplar() != nil
	}
	if !found {
		t.Error("no exemplar in the histogram")
	}
}

// Whatever comes, the number of series has a bound, and no request is lost.
func TestSeriesAreBounded(t *testing.T) {
	reg := prometheus.NewRegistry()
	const most, kinds = 10, 100
	m := New(reg, Config{MaxSeries: most})
	for i := range kinds {
		for range 2 {
			k := key()
			k.Source.Owner = fmt.Sprint("client-", i)
			m.Record(k, Observation{})
		}
	}
	f := gathered(t, reg, "ambit_requests_total")
	if n := len(f.GetMetric()); n != most+1 {
		t.Errorf("%d series, want %d", n, most+1)
	}
	sum, rest := 0., 0.
	for _, s := range f.GetMetric() {
		sum += s.GetCounter().GetValue()
		for _, l := range s.GetLabel() {
			if l.GetName() == "source_workload" && l.GetValue() == "other" {
				rest = s.GetCounter().GetValue()
			}
		}
	}
	if sum != 2*kinds || rest != 2*(kinds-most) || testutil.ToFloat64(m.collapsed) != rest {
		t.Errorf("%v requests, %v of them as other, %v counted as such", sum, rest, testutil.ToFloat64(m.collapsed))
	}
	if len(m.byKey) > most*keysPerSeries {
		t.Errorf("%d keys are remembered", len(m.byKey))
	}
}

func TestRecordAllocatesNothing(t *testing.T) {
	m := New(prometheus.NewRegistry(), Config{})
	k := key()
	m.Record(k, Observation{})
	if n := testing.AllocsPerRun(100, func() { m.Record(k, Observation{Duration: time.Millisecond}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	(*Requests)(nil).Record(k, Observation{})
}

func BenchmarkRecord(b *testing.B) {
	for name, cfg := range map[string]Config{"native": {}, "with Istio's": {Istio: true}} {
		b.Run(name, func(b *testing.B) {
			m := New(prometheus.NewRegistry(), cfg)
			k := key()
			b.ReportAllocs()
			for b.Loop() {
				m.Record(k, Observation{Duration: time.Millisecond})
			}
		})
	}
}
