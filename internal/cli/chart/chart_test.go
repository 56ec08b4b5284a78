package chart_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/internal/cli/chart"
)

var update = flag.Bool("update", false, "write what is rendered as what is wanted")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestGolden renders the chart with each values file of testdata.
func TestGolden(t *testing.T) {
	cases, err := filepath.Glob("testdata/*.values.yaml")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range cases {
		name := strings.TrimSuffix(filepath.Base(path), ".values.yaml")
		t.Run(name, func(t *testing.T) {
			got := render(t, path)
			golden := "testdata/" + name + ".golden.yaml"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("(-want +got; go test -update accepts it):\n%s", d)
			}
		})
	}
}

// render gives all objects but the CRDs, which have their own files.
func render(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]any{}
	if err := yaml.UnmarshalStrict(text, &values); err != nil {
		t.Fatal(err)
	}
	target := chart.Target{}
	if strings.Contains(string(text), "# with the Gateway API") {
		target.APIs = []string{chart.GatewayAPI}
	}
	got, err := chart.Render("", values, target)
	if err != nil {
		t.Fatal(err)
	}
	decodeAll(t, got)
	var out strings.Builder
	for doc := range strings.SplitSeq(got, "---\n") {
		if strings.TrimSpace(doc) != "" && !strings.Contains(doc, "kind: CustomResourceDefinition") {
			out.WriteString("---\n" + doc)
		}
	}
	return out.String()
}

// Values that can never be right are refused with the name of the value.
func TestSchema(t *testing.T) {
	for values, want := range map[string]string{
		"image: {registri: x}":                                        "image: additional properties 'registri' not allowed",
		"image: {registry: example.com/}":                             "image.registry: ",
		"image: {digests: {ztunnel: latest}}":                         "image.digests.ztunnel: ",
		"controlplane: {replicas: 0}":                                 "controlplane.replicas: minimum: got 0, want 1",
		"controlplane: {replicas: two}":                               "controlplane.replicas: got string, want integer",
		"ca: {certManager: {duration: 90d}}":                          "ca.certManager.duration: ",
		"log: {level: loud}":                                          "log.level: value must be one of 'debug', 'info', 'warn', 'error'",
		"mesh: {certTTL: 1 day}":                                      "mesh.certTTL: ",
		"ztunnel: {drainTimeout: 10}":                                 "ztunnel.drainTimeout: got number, want string",
		"ztunnel: {extraArgs: [drain]}":                               "ztunnel.extraArgs.0: ",
		"nodeagent: {updateStrategy: {rollingUpdate: {maxSurge: 1}}}": "nodeagent.updateStrategy.rollingUpdate: additional properties 'maxSurge' not allowed",
		"cni: {confDir: etc/cni}":                                     "cni.confDir: ",
		"waypoints: {gatewayClass: maybe}":                            "waypoints.gatewayClass: value must be one of 'auto', 'always', 'never'",
		"istiod: {}":                                                  "values: additional properties 'istiod' not allowed",
	} {
		t.Run(values, func(t *testing.T) {
			v := map[string]any{}
			if err := yaml.Unmarshal([]byte(values), &v); err != nil {
				t.Fatal(err)
			}
			_, err := chart.Render("", v, chart.Target{})
			var bad *chart.ValuesError
			if !errors.As(err, &bad) || len(bad.Problems) != 1 || !strings.HasPrefix(bad.Problems[0], want) {
				t.Fatalf("got %v, want %q", err, want)
			}
		})
	}
}

// A mesh has one authority.
func TestTwoAuthoritiesAreRefused(t *testing.T) {
	_, err := chart.Render("", map[string]any{"ca": map[string]any{"existingSecret": "cacerts", "certManager": map[string]any{"issuer": "company"}}}, chart.Target{})
	if err == nil || !strings.Contains(err.Error(), "ca.existingSecret and ca.certManager.issuer exclude each other") {
		t.Fatalf("got %v", err)
	}
}

func TestOldKubernetesIsRefused(t *testing.T) {
	_, err := chart.Render("", nil, chart.Target{KubeVersion: "v1.29.3"})
	if err == nil || !strings.Contains(err.Error(), "1.31") {
		t.Fatalf("got %v", err)
	}
}

// One value moves all images.
func TestOneRegistry(t *testing.T) {
	got, err := chart.Render("1.2.3", map[string]any{"image": map[string]any{"registry": "registry.internal:5000/mirror"}}, chart.Target{})
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(got, "registry.internal:5000/mirror/ambit-"); n != 4 {
		t.Errorf("%d images come from the registry, want those of 4 programs", n)
	}
	if strings.Contains(got, "ghcr.io") {
		t.Error("something still comes from the default registry")
	}
	if n := strings.Count(got, ":1.2.3\n"); n != 4 {
		t.Errorf("%d images have the version as their tag, want 4", n)
	}
}

func mustRender(t *testing.T, values map[string]any) string {
	t.Helper()
	got, err := chart.Render("", values, chart.Target{})
	if err != nil {
		t.Fatal(err)
	}
	return got
}
