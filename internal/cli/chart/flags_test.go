package chart_test

import (
	"bytes"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/controlplane/provision"
	"github.com/ambit-mesh/ambit/internal/cli/chart"
)

// allValues turns on what adds arguments.
const allValues = `
mesh: {network: net}
ca: {existingSecret: cacerts}
`

var flagLine = regexp.MustCompile(`(?m)^ +(?:-\w, )?--([a-z0-9-]+)`)

// flags are those that a program says it has.
func flags(t *testing.T, dir, program string) map[string]bool {
	t.Helper()
	bin := filepath.Join(dir, program)
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../../../cmd/"+program).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var help bytes.Buffer
	cmd := exec.CommandContext(t.Context(), bin, "--help")
	cmd.Stdout, cmd.Stderr = &help, &help
	_ = cmd.Run()
	out := make(map[string]bool)
	for _, m := range flagLine.FindAllStringSubmatch(help.String(), -1) {
		out[m[1]] = true
	}
	if len(out) < 5 {
		t.Fatalf("%s --help: %s", program, help.String())
	}
	return out
}

// TestArgumentsAreFlags: what the chart, and the control plane for waypoints, start
// programs with are flags that these have.
func TestArgumentsAreFlags(t *testing.T) {
	if testing.Short() {
		t.Skip("builds all programs")
	}
	values := map[string]any{}
	if err := yaml.Unmarshal([]byte(allValues), &values); err != nil {
		t.Fatal(err)
	}
	text, err := chart.Render("", values, chart.Target{APIs: []string{chart.GatewayAPI}})
	if err != nil {
		t.Fatal(err)
	}
	pods := make(map[string][]corev1.PodSpec)
	for _, obj := range decodeAll(t, text) {
		var spec corev1.PodSpec
		switch o := obj.(type) {
		case *appsv1.Deployment:
			spec = o.Spec.Template.Spec
		case *appsv1.DaemonSet:
			spec = o.Spec.Template.Spec
		default:
			continue
		}
		collect(t, pods, spec)
		if token := spec.AutomountServiceAccountToken; token == nil || *token != (spec.ServiceAccountName == "ambit-controlplane") {
			t.Errorf("%s: only the control plane gets a token for the Kubernetes API", spec.ServiceAccountName)
		}
	}
	gw := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "wp"}}
	made := provision.Make(gw, provision.Options{Image: "i", Cluster: &provision.Cluster{TokenAudience: "a", RootConfigMap: "r"}})
	if token := made.Deployment.Spec.Template.Spec.AutomountServiceAccountToken; token == nil || *token {
		t.Error("waypoints get a token for the Kubernetes API")
	}
	pods["waypoint"] = append(pods["waypoint"], made.Deployment.Spec.Template.Spec)
	if got := slices.Sorted(maps.Keys(pods)); fmt.Sprint(got) != "[controlplane nodeagent waypoint ztunnel]" {
		t.Fatalf("programs %v", got)
	}
	dir := t.TempDir()
	for program, specs := range pods {
		has := flags(t, dir, program)
		for _, spec := range specs {
			for _, c := range spec.Containers {
				for _, arg := range c.Args {
					name, _, _ := strings.Cut(arg, "=")
					if flag, ok := strings.CutPrefix(name, "--"); !ok || !has[flag] {
						t.Errorf("%s has no flag %s", program, arg)
					}
				}
			}
		}
	}
}

// collect files a pod under the program that it runs.
func collect(t *testing.T, pods map[string][]corev1.PodSpec, spec corev1.PodSpec) {
	t.Helper()
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		program, ok := strings.CutPrefix(strings.Join(c.Command, " "), "/usr/bin/ambit-")
		if !ok {
			t.Errorf("container %s runs %q", c.Name, c.Command)
			continue
		}
		pods[program] = append(pods[program], corev1.PodSpec{Containers: []corev1.Container{c}})
	}
}
