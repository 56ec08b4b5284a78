package compile_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/controlplane/compile"
)

// trafficTypes are the resources of waypoints.
var trafficTypes = []string{compile.TypeFrontend, compile.TypeBackend}

// TestTraffic runs the cases of testdata/traffic: manifests and what waypoints
// are told of them, with the statuses of routes and policies and the findings. A
// case is read like one of TestGolden, and "want" is the part for waypoints.
func TestTraffic(t *testing.T) {
	paths, err := filepath.Glob("testdata/traffic/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) { runCase(t, path, renderTraffic) })
	}
}

func renderTraffic(c *compile.Compiler) string {
	var b strings.Builder
	for _, typeURL := range trafficTypes {
		for _, r := range c.Resources(typeURL) {
			b.WriteString(renderResource(r))
		}
	}
	for _, s := range c.RouteStatuses() {
		for i, parent := range s.Parents {
			fmt.Fprintf(&b, "status %s parent %d %s\n", s.Object, i, parent.ParentRef.Name)
			for _, cond := range parent.Conditions {
				fmt.Fprintf(&b, "  %s=%s %s: %s\n", cond.Type, cond.Status, cond.Reason, cond.Message)
			}
		}
	}
	for _, s := range c.Statuses() {
		if slices.Contains([]string{"Gateway", "Service", "Namespace", "Pod"}, s.Object.Kind) {
			continue // of no interest here
		}
		for _, cond := range s.Status.Conditions {
			fmt.Fprintf(&b, "status %s\n  %s=%s %s: %s\n", s.Object, cond.Type, cond.Status, cond.Reason, cond.Message)
		}
		if len(s.Status.Conditions) == 0 {
			fmt.Fprintf(&b, "status %s\n", s.Object)
		}
		for _, a := range s.Status.Ancestors {
			for _, cond := range a.Conditions {
				fmt.Fprintf(&b, "    %s %s: %s=%s %s: %s\n", *a.AncestorRef.Kind, a.AncestorRef.Name, cond.Type, cond.Status, cond.Reason, cond.Message)
			}
		}
	}
	for _, f := range c.Findings() {
		fmt.Fprintf(&b, "finding %s\n", f)
	}
	return b.String()
}
