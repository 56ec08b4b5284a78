package reference

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
)

const root = "../../.."

// published names are not ours to choose.
func published(name string) bool {
	return strings.HasPrefix(name, "istio_") || strings.HasPrefix(name, "workload_manager_")
}

func TestMetricNames(t *testing.T) {
	metrics, err := Metrics(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(metrics) < 20 {
		t.Fatalf("only %d metrics found: the reader of declarations misses some", len(metrics))
	}
	types := map[string]dto.MetricType{"counter": dto.MetricType_COUNTER, "gauge": dto.MetricType_GAUGE, "histogram": dto.MetricType_HISTOGRAM}
	for _, m := range metrics {
		if published(m.Name) {
			continue
		}
		if !strings.HasPrefix(m.Name, "ambit_") {
			t.Errorf("%s (%s): our own names begin with ambit_", m.Name, m.Package)
		}
		kind := types[m.Type]
		family := &dto.MetricFamily{Name: &m.Name, Help: &m.Help, Type: &kind, Metric: []*dto.Metric{{}}}
		problems, err := promlint.NewWithMetricFamilies([]*dto.MetricFamily{family}).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s (%s): %s", m.Name, m.Package, p.Text)
		}
		for _, l := range m.Labels {
			if strings.ToLower(l) != l || strings.Contains(l, "-") {
				t.Errorf("%s (%s): label %q: want lower case and underscores", m.Name, m.Package, l)
			}
		}
	}
}

// A metric that two packages declare has one meaning.
func TestMetricsAgree(t *testing.T) {
	metrics, err := Metrics(root)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(metrics); i++ {
		a, b := metrics[i-1], metrics[i]
		if a.Name == b.Name && (a.Type != b.Type || !slices.Equal(a.Labels, b.Labels)) {
			t.Errorf("%s: %s and %s declare it differently", a.Name, a.Package, b.Package)
		}
	}
}

func TestDeclarations(t *testing.T) {
	dir := t.TempDir()
	text := `package p

const prefix = "ambit_"

var shared = [...]string{"a", "b"}

func plain(r prometheus.Registerer) {
	labels := []string{"x"}
	prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + "one", Help: "One " + "thing."})
	prometheus.NewCounterVec(prometheus.CounterOpts{Name: "two_total", Help: "Two."}, labels)
	vec := func(name, help string, labels ...string) {
		prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help}, labels)
	}
	vec("three_seconds", "Three.", shared[:]...)
	vec("four_seconds", "Four.", "y", "z")
}
`
	if err := os.WriteFile(filepath.Join(dir, "p.go"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := declared(dir, ".")
	if err != nil {
		t.Fatal(err)
	}
	want := []Metric{
		{Name: "ambit_one", Help: "One thing.", Type: "gauge"},
		{Name: "two_total", Help: "Two.", Type: "counter", Labels: []string{"x"}},
		{Name: "three_seconds", Help: "Three.", Type: "histogram", Labels: []string{"a", "b"}},
		{Name: "four_seconds", Help: "Four.", Type: "histogram", Labels: []string{"y", "z"}},
	}
	for i := range got {
		got[i].Package = ""
	}
	if !slices.EqualFunc(got, want, func(a, b Metric) bool {
		return a.Name == b.Name && a.Help == b.Help && a.Type == b.Type && slices.Equal(a.Labels, b.Labels)
	}) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// A declaration that cannot be read is an error, not a metric that is missing.
func TestUnreadableDeclaration(t *testing.T) {
	dir := t.TempDir()
	text := "package p\n\nfunc f(o options) {\n\tprometheus.NewGauge(prometheus.GaugeOpts{Name: o.name})\n}\n"
	if err := os.WriteFile(filepath.Join(dir, "p.go"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := declared(dir, "."); err == nil {
		t.Error("no error")
	}
}

func TestResources(t *testing.T) {
	page, err := resources(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"## AuthorizationPolicy", "`spec.rules[].sources[].serviceAccount.name`", "## PeerAuthentication", "`WaypointRequired`"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page of the CRDs lacks %s", want)
		}
	}
}
