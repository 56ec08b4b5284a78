package reference

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Metric is one metric as it is declared.
type Metric struct {
	Name, Help string
	// Type is counter, gauge or histogram.
	Type   string
	Labels []string
	// Package is the folder that declares it.
	Package string
}

// exposers say which process exposes the metrics that a folder declares.
var exposers = []struct{ folder, processes string }{
	{"ztunnel/nodeagent", "node agent"},
	{"ztunnel", "ztunnel"},
	{"waypoint", "waypoint"},
	{"controlplane", "control plane"},
	{"waypoint", "waypoint"},
	{"internal/xdsclient", "ztunnel, waypoint, node agent"},
	{"internal/zds", "node agent"},
	{"internal/certs", "ztunnel, waypoint"},
	{"internal/revocation", "ztunnel, waypoint"},
	{"internal/tunnel", "ztunnel, waypoint"},
	{"internal/snapshot", "ztunnel"},
	{"internal/flow", "ztunnel, waypoint"},
	{"internal/stats", "waypoint"},
	{"internal/trace", "waypoint"},
}

func (m Metric) exposedBy() (string, error) {
	for _, e := range exposers {
		if strings.HasPrefix(m.Package+"/", e.folder+"/") {
			return e.processes, nil
		}
	}
	return "", fmt.Errorf("%s: nobody knows which process exposes the metrics of %s: say so in docs/internal/reference/metrics.go", m.Name, m.Package)
}

// Metrics reads the declarations of all metrics of the tree.
func Metrics(root string) ([]Metric, error) {
	var all []Metric
	for _, folder := range []string{"ztunnel", "waypoint", "controlplane", "internal"} {
		found, err := declared(root, folder)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	for _, m := range all {
		if _, err := m.exposedBy(); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b Metric) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Package, b.Package))
	})
	return all, nil
}

func renderMetrics(all []Metric) string {
	var b strings.Builder
	b.WriteString(notice + "# Metrics\n\n")
	b.WriteString("Names that begin with `istio_` and `workload_manager_` are published ones: boards and queries made for ambient meshes\n" +
		"find them here. What those do not know begins with `ambit_`. A metric with labels appears with its first event.\n")
	byProcess := map[string][]Metric{}
	for _, m := range all {
		process, _ := m.exposedBy() // checked by Metrics
		byProcess[process] = append(byProcess[process], m)
	}
	shared := labelSets(all)
	for _, process := range []string{"ztunnel", "ztunnel, waypoint, node agent", "ztunnel, waypoint", "waypoint", "node agent", "control plane"} {
		if len(byProcess[process]) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\n| metric | type | labels | what it is |\n|---|---|---|---|\n", strings.ToUpper(process[:1])+process[1:])
		for _, m := range byProcess[process] {
			labels := strings.Join(m.Labels, ", ")
			if of, long := shared[labels]; long {
				labels = fmt.Sprintf("[those of %s](#labels-of-%s)", of, of)
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Type, labels, cell(m.Help))
		}
	}
	for _, labels := range slices.SortedFunc(maps.Keys(shared), func(a, b string) int { return strings.Compare(shared[a], shared[b]) }) {
		fmt.Fprintf(&b, "\n## Labels of %s\n\n", shared[labels])
		for l := range strings.SplitSeq(labels, ", ") {
			fmt.Fprintf(&b, "- `%s`\n", l)
		}
	}
	return b.String()
}

// labelSets gives the label lists that are too long for a table, and what they are
// the labels of.
func labelSets(all []Metric) map[string]string {
	sets := map[string]string{}
	for _, m := range all {
		if len(m.Labels) <= 10 {
			continue
		}
		sets[strings.Join(m.Labels, ", ")] = "connections"
		if slices.Contains(m.Labels, "response_code") {
			sets[strings.Join(m.Labels, ", ")] = "requests"
		}
	}
	return sets
}
