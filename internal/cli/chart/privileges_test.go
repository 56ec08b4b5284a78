package chart_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/controlplane/provision"
	"github.com/ambit-mesh/ambit/internal/cli/chart"
)

// documented are the capabilities of each container in the table of
// docs/user/security.md, each of which has a reason there.
func documented(t *testing.T) map[string][]corev1.Capability {
	t.Helper()
	text, err := os.ReadFile("../../../docs/user/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "| container | capability | for |\n|---|---|---|\n")
	if !found {
		t.Fatal("docs/user/security.md has no table of capabilities")
	}
	out := make(map[string][]corev1.Capability)
	container := ""
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 {
			break
		}
		if name := strings.TrimSpace(cells[1]); name != "" {
			container = strings.ReplaceAll(name, " ", "")
		}
		if capability, ok := strings.CutPrefix(strings.TrimSpace(cells[2]), "`"); ok {
			if strings.TrimSpace(cells[3]) == "" {
				t.Errorf("no reason for %s of %s", capability, container)
			}
			out[container] = append(out[container], corev1.Capability(strings.TrimSuffix(capability, "`")))
		}
	}
	return out
}

// TestPrivileges: no container has a capability that is not documented with its reason,
// and each that needs none has none.
func TestPrivileges(t *testing.T) {
	text, err := chart.Render("", nil, chart.Target{APIs: []string{chart.GatewayAPI}})
	if err != nil {
		t.Fatal(err)
	}
	gw := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "wp"}}
	made := provision.Make(gw, provision.Options{Image: "i", Cluster: &provision.Cluster{TokenAudience: "a", RootConfigMap: "r"}})
	pods := []corev1.PodSpec{made.Deployment.Spec.Template.Spec}
	for _, obj := range decodeAll(t, text) {
		switch o := obj.(type) {
		case *appsv1.Deployment:
			pods = append(pods, o.Spec.Template.Spec)
		case *appsv1.DaemonSet:
			pods = append(pods, o.Spec.Template.Spec)
		}
	}
	if len(pods) != 4 {
		t.Fatalf("%d kinds of pods, want control plane, ztunnel, node agent and waypoint", len(pods))
	}
	want := documented(t)
	for _, pod := range pods {
		agent := false
		for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
			s := c.SecurityContext
			if s == nil || s.Capabilities == nil {
				t.Errorf("%s: no security context", c.Name)
				continue
			}
			agent = agent || c.Name == "nodeagent"
			add, listed := slices.Sorted(slices.Values(s.Capabilities.Add)), slices.Sorted(slices.Values(want[c.Name]))
			if !slices.Equal(add, listed) || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
				t.Errorf("%s has capabilities %v and drops %v; docs/user/security.md gives reasons for %v", c.Name, add, s.Capabilities.Drop, listed)
			}
			if s.Privileged != nil && *s.Privileged || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
				t.Errorf("%s: privileged, may get more, or can write its root: %+v", c.Name, s)
			}
			root := s.RunAsUser != nil && *s.RunAsUser == 0
			nonRoot := pod.SecurityContext != nil && pod.SecurityContext.RunAsNonRoot != nil && *pod.SecurityContext.RunAsNonRoot ||
				s.RunAsNonRoot != nil && *s.RunAsNonRoot
			if root != (len(listed) > 0) || root == nonRoot {
				t.Errorf("%s runs as root: %v, must not: %v", c.Name, root, nonRoot)
			}
			seccomp := s.SeccompProfile
			if seccomp == nil && pod.SecurityContext != nil {
				seccomp = pod.SecurityContext.SeccompProfile
			}
			if seccomp == nil || seccomp.Type != corev1.SeccompProfileTypeRuntimeDefault {
				t.Errorf("%s: seccomp profile %+v", c.Name, seccomp)
			}
			if unconfined := s.AppArmorProfile != nil; unconfined != (c.Name == "nodeagent") {
				t.Errorf("%s has an AppArmor profile of its own: %v", c.Name, unconfined)
			}
		}
		if pod.HostPID != agent || pod.HostNetwork != agent || pod.HostIPC {
			t.Errorf("%s: shares more of the node than is documented", pod.Containers[0].Name)
		}
	}
}
