package law

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	meshv1alpha1 "github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/internal/manifest"
)

const shop = "examples/shop/manifests"

// Every example is sound as it is: all of it put together, nothing is refused or
// in doubt.
func TestExamples(t *testing.T) {
	for name, dirs := range examples(t) {
		t.Run(name, func(t *testing.T) { wantSound(t, dirs...) })
	}
}

// examples gives the folders with manifests of each example, which is a folder of
// examples or of manifests/examples.
func examples(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	if err := walk(".yaml", func(path string, _ []byte) error {
		for _, folder := range []string{"examples/", "manifests/examples/"} {
			rest, ok := strings.CutPrefix(path, folder)
			name, _, below := strings.Cut(rest, "/")
			dir := filepath.Join(root, filepath.Dir(path))
			if ok && below && !slices.Contains(all[folder+name], dir) {
				all[folder+name] = append(all[folder+name], dir)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("no examples found")
	}
	return all
}

// standing begins a manifest that the others of its page build on.
const standing = "# For all of this page."

// Every manifest on a page can be put beside the shop's and does what the page
// says: it is accepted or, where a comment "refused:" gives a reason, refused.
func TestManifestsOnPages(t *testing.T) {
	for _, p := range pages(t) {
		dirs := []string{filepath.Join(root, shop)}
		for i, block := range p.blocks("yaml") {
			if !strings.Contains(block, "apiVersion:") {
				continue
			}
			with := append(slices.Clone(dirs), write(t, block))
			if strings.HasPrefix(block, standing) {
				dirs = with
			}
			t.Run(fmt.Sprintf("%s/%d", p.path, i), func(t *testing.T) {
				if strings.Contains(block, "# refused: ") {
					wantRefused(t, block, with...)
					return
				}
				wantSound(t, with...)
			})
		}
	}
}

// write puts a manifest into a directory of its own.
func write(t *testing.T, block string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "page.yaml"), []byte(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// judge compiles directories of manifests and gives what is wrong with them.
func judge(t *testing.T, dirs ...string) []string {
	t.Helper()
	batch, err := manifest.Load(dirs...)
	if err != nil {
		t.Fatal(err)
	}
	var wrong []string
	for _, p := range batch.Problems {
		wrong = append(wrong, p.Error())
	}
	c, err := compile.New(compile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var in compile.Input
	for _, o := range batch.Upserts {
		in.Upserts = append(in.Upserts, graph.Entry{Object: o.Resource, Origin: o.Where})
	}
	c.Apply(in)
	for _, s := range c.Statuses() {
		if bound := meta.FindStatusCondition(s.Status.Conditions, compile.ConditionWaypointBound); bound != nil {
			// Manifests run nothing, so that no waypoint is ready.
			if bound.Status != "True" && bound.Reason != "WaypointNotReady" && bound.Reason != "WaitingForWaypoint" {
				wrong = append(wrong, fmt.Sprintf("%s: %s: %+v", s.Origin, s.Object, bound))
			}
			continue
		}
		of := [][]metav1.Condition{s.Status.Conditions}
		if len(s.Status.Conditions) == 0 { // a policy of Gateway API has them for each target alone
			of = of[1:]
			for _, a := range s.Status.Ancestors {
				of = append(of, a.Conditions)
			}
		}
		for _, conditions := range of {
			if cond := meta.FindStatusCondition(conditions, meshv1alpha1.ConditionAccepted); cond == nil || cond.Status != "True" {
				wrong = append(wrong, fmt.Sprintf("%s: %s: %+v", s.Origin, s.Object, cond))
			}
		}
		if len(of) == 0 {
			wrong = append(wrong, fmt.Sprintf("%s: %s: no condition", s.Origin, s.Object))
		}
	}
	return append(wrong, judgeRoutes(c)...)
}

// judgeRoutes gives what is wrong with the routes.
func judgeRoutes(c *compile.Compiler) []string {
	var wrong []string
	for _, s := range c.RouteStatuses() {
		for _, parent := range s.Parents {
			for _, cond := range parent.Conditions {
				if (cond.Status == "True") == (cond.Type == string(gatewayv1.RouteConditionPartiallyInvalid)) {
					wrong = append(wrong, fmt.Sprintf("%s: %s: %+v", s.Origin, s.Object, cond))
				}
			}
		}
	}
	return wrong
}

func wantSound(t *testing.T, dirs ...string) {
	t.Helper()
	for _, w := range judge(t, dirs...) {
		t.Error(w)
	}
}

// wantRefused wants the reason that the block announces.
func wantRefused(t *testing.T, block string, dirs ...string) {
	t.Helper()
	_, reason, _ := strings.Cut(block, "# refused: ")
	reason, _, _ = strings.Cut(reason, "\n")
	wrong := judge(t, dirs...)
	if len(wrong) == 0 || !strings.Contains(strings.Join(wrong, "\n"), reason) {
		t.Errorf("not refused with %q: %q", reason, wrong)
	}
}
