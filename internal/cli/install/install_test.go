package install_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/internal/cli/install"
	"github.com/ambit-mesh/ambit/internal/cli/kube"
	"github.com/ambit-mesh/ambit/tests/cluster/apitest"
)

// The life of an installation against a real API server, which has no nodes and no
// controllers: everything is applied and accepted, repeated, upgraded, rolled back,
// and taken out again.
func TestLife(t *testing.T) {
	s := apitest.Start(t)
	var flags kube.Flags
	set := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.Add(set)
	if err := set.Parse([]string{"--kubeconfig=" + s.Kubeconfig}); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	c, err := flags.Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	i := &install.Installer{Cluster: c, Say: t.Logf}
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
