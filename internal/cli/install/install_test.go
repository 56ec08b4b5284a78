package install_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"

	"github.com/ambit-mesh/ambit/internal/cli/install"
	"github.com/ambit-mesh/ambit/internal/cli/kube"
	"github.com/ambit-mesh/ambit/tests/cluster/apitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// installer gives an API server of its own, and what installs there.
func installer(t *testing.T) (*install.Installer, *apitest.Server) {
	t.Helper()
	s := apitest.Start(t)
	var flags kube.Flags
	set := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.Add(set)
	if err := set.Parse([]string{"--kubeconfig=" + s.Kubeconfig}); err != nil {
		t.Fatal(err)
	}
	c, err := flags.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		transport, err := rest.TransportFor(c.Config)
		if err != nil {
			t.Error(err)
		}
		utilnet.CloseIdleConnectionsFor(transport)
	})
	return &install.Installer{Cluster: c, Say: t.Logf}, s
}

// A dry run gives the objects and changes nothing.
func TestDryRun(t *testing.T) {
	i, _ := installer(t)
	ctx := t.Context()
	rel, err := i.Apply(ctx, install.Request{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"kind: DaemonSet", "kind: Deployment", "kind: CustomResourceDefinition", "kind: ClusterRole"} {
		if !strings.Contains(rel.Manifest, want) {
			t.Errorf("the manifest has no %s", want)
		}
	}
	if _, err := i.Current(); !errors.Is(err, install.ErrNotInstalled) {
		t.Errorf("after a dry run: %v", err)
	}
	if _, err := i.Cluster.CoreV1().Namespaces().Get(ctx, i.Cluster.System, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the namespace was made: %v", err)
	}
	if n, err := i.Cluster.List(ctx, kube.CRDs(), ""); err != nil || len(n) > 0 {
		t.Errorf("%d definitions were made, %v", len(n), err)
	}
	// What the chart does not know is refused here, too.
	if _, err := i.Apply(ctx, install.Request{DryRun: true, Values: map[string]any{"nodeagents": map[string]any{}}}); err == nil || !strings.Contains(err.Error(), "nodeagents") {
		t.Errorf("a dry run with a value that the chart does not have: %v", err)
	}
}

// What others made is adopted only when that is asked for.
func TestTakeOwnership(t *testing.T) {
	i, s := installer(t)
	ctx := t.Context()
	if _, err := s.Kubectl("", "apply", "--server-side", "-f", "../../../manifests/crds"); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Apply(ctx, install.Request{}); err == nil || !strings.Contains(err.Error(), "invalid ownership metadata") {
		t.Fatalf("definitions of somebody else: %v", err)
	}
	if _, err := i.Apply(ctx, install.Request{TakeOwnership: true}); err != nil {
		t.Fatal(err)
	}
	crds, err := i.Cluster.List(ctx, kube.CRDs(), "")
	if err != nil || len(crds) == 0 {
		t.Fatal(len(crds), err)
	}
	for _, c := range crds {
		if c.GetAnnotations()["meta.helm.sh/release-name"] != "ambit" {
			t.Errorf("%s is not the release's", c.GetName())
		}
	}
}

// The life of an installation against a real API server, which has no nodes and no
// controllers: everything is applied and accepted, repeated, upgraded, rolled back,
// and taken out again.
func TestLife(t *testing.T) {
	i, _ := installer(t)
	ctx, c := t.Context(), i.Cluster
	if _, err := i.Current(); !errors.Is(err, install.ErrNotInstalled) {
		t.Fatalf("before: %v", err)
	}
	findings, err := i.Before(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		if f.Level == install.Failure {
			t.Errorf("%+v", f)
		}
	}
	apply := func(want int, values map[string]any) {
		t.Helper()
		rel, err := i.Apply(ctx, install.Request{Values: values})
		if err != nil || rel.Version != want {
			t.Fatalf("apply: %v, %v", rel, err)
		}
	}
	apply(1, map[string]any{"controlplane": map[string]any{"replicas": 3}})
	apply(2, nil)
	if n := replicas(ctx, t, c); n != 3 {
		t.Errorf("a repeated install has forgotten a value: %d replicas", n)
	}
	apply(3, map[string]any{"controlplane": map[string]any{"replicas": 1}})
	if err := i.Rollback(0); err != nil {
		t.Fatal(err)
	}
	if n := replicas(ctx, t, c); n != 3 {
		t.Errorf("after the rollback there are %d replicas", n)
	}
	var timeout *install.TimeoutError
	if err := i.Wait(ctx, 10*time.Millisecond); !errors.As(err, &timeout) || len(timeout.Waiting) == 0 {
		t.Errorf("nothing runs here, but the wait ended with %v", err)
	}
	membership(ctx, t, i)
	if err := i.Remove(ctx, time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Current(); !errors.Is(err, install.ErrNotInstalled) {
		t.Errorf("after: %v", err)
	}
	if err := i.RemoveDefinitions(ctx); err != nil {
		t.Fatal(err)
	}
}

func replicas(ctx context.Context, t *testing.T, c *kube.Cluster) int32 {
	t.Helper()
	d, err := c.AppsV1().Deployments(c.System).Get(ctx, "ambit-controlplane", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return *d.Spec.Replicas
}

// membership enrols a namespace with a pod that is captured, and takes it out.
func membership(ctx context.Context, t *testing.T, i *install.Installer) {
	t.Helper()
	pods := i.Cluster.CoreV1().Pods("shop")
	if _, err := i.Cluster.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p, err := pods.Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "c"}}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Enrol(ctx, "shop", "ambient", 0); err != nil {
		t.Fatal(err)
	}
	var timeout *install.TimeoutError
	if err := i.Enrol(ctx, "shop", "ambient", 10*time.Millisecond); !errors.As(err, &timeout) {
		t.Errorf("nobody captures here, but: %v", err)
	}
	p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: install.ConditionCaptured, Status: corev1.ConditionTrue})
	if p, err = pods.UpdateStatus(ctx, p, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := i.Enrol(ctx, "shop", "ambient", time.Minute); err != nil {
		t.Error(err)
	}
	if err := i.Release(ctx, 10*time.Millisecond); !errors.As(err, &timeout) {
		t.Errorf("nobody releases here, but: %v", err)
	}
	p.Status.Conditions = nil
	if _, err := pods.UpdateStatus(ctx, p, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := i.Release(ctx, time.Minute); err != nil {
		t.Error(err)
	}
}
