package chart

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	releasev1 "helm.sh/helm/v4/pkg/release/v1"

	"github.com/ambit-mesh/ambit/manifests"
)

// Names of the release, which are those that everything else goes by.
const (
	Release   = "ambit"
	Namespace = "ambit-system"
)

// Load gives the chart. An empty version leaves its appVersion, which is the
// default tag of images.
func Load(version string) (*chartv2.Chart, error) {
	files, err := manifests.Chart()
	if err != nil {
		return nil, err
	}
	var list []*archive.BufferedFile
	for _, name := range slices.Sorted(maps.Keys(files)) {
		list = append(list, &archive.BufferedFile{Name: name, Data: files[name]})
	}
	c, err := loader.LoadFiles(list)
	if err != nil {
		return nil, fmt.Errorf("embedded chart: %w", err)
	}
	if version != "" {
		c.Metadata.AppVersion = strings.TrimPrefix(version, "v")
	}
	return c, nil
}

// Target is the cluster that the chart is rendered for.
type Target struct {
	// Namespace of the release; Namespace if empty.
	Namespace string
	// KubeVersion is like v1.36.1; the oldest that is supported if empty.
	KubeVersion string
	// APIs are served beside those of Kubernetes, as GROUP/VERSION/KIND.
	APIs []string
}

// GatewayAPI is what Target.APIs has where the Gateway API is installed.
const GatewayAPI = "gateway.networking.k8s.io/v1/GatewayClass"

// oldest is the oldest version of Kubernetes that the chart takes.
const oldest = "v1.31.0"

// Render gives the text of all objects, without asking a cluster.
func Render(version string, values map[string]any, t Target) (string, error) {
	c, err := Load(version)
	if err != nil {
		return "", err
	}
	if t.KubeVersion == "" {
		t.KubeVersion = oldest
	}
	kube, err := common.ParseKubeVersion(t.KubeVersion)
	if err != nil {
		return "", fmt.Errorf("version of Kubernetes %q: %w", t.KubeVersion, err)
	}
	in := action.NewInstall(action.NewConfiguration(action.ConfigurationSetLogger(slog.DiscardHandler)))
	in.DryRunStrategy, in.ReleaseName, in.Namespace = action.DryRunClient, Release, t.Namespace
	if in.Namespace == "" {
		in.Namespace = Namespace
	}
	in.KubeVersion, in.APIVersions = kube, t.APIs
	made, err := in.Run(c, values)
	if err != nil {
		return "", Explain(err)
	}
	rel, ok := made.(*releasev1.Release)
	if !ok {
		return "", fmt.Errorf("unexpected release %T", made)
	}
	return rel.Manifest, nil
}

// ValuesError is a value that the chart does not take.
type ValuesError struct{ Problems []string }

// Error gives one line for each problem.
func (e *ValuesError) Error() string {
	return "values that the chart does not take:\n  " + strings.Join(e.Problems, "\n  ") +
		"\nwhat is possible is in manifests/charts/ambit/README.md, and ambit install --help"
}

// Explain makes errors about values readable.
func Explain(err error) error {
	_, text, ok := strings.Cut(err.Error(), "values don't meet the specifications of the schema(s)")
	if !ok {
		return err
	}
	var out []string
	for line := range strings.Lines(text) {
		if line, is := strings.CutPrefix(strings.TrimSpace(line), "- "); is {
			out = append(out, problem(line))
		}
	}
	if len(out) == 0 {
		return errors.New(strings.TrimSpace(text))
	}
	return &ValuesError{out}
}

// problem turns "at '/a/b': why" into "a.b: why".
func problem(line string) string {
	rest, ok := strings.CutPrefix(line, "at '")
	where, why, cut := strings.Cut(rest, "': ")
	if !ok || !cut {
		return line
	}
	where = strings.ReplaceAll(strings.Trim(where, "/"), "/", ".")
	if where == "" {
		where = "values"
	}
	return where + ": " + why
}
