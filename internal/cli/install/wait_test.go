package install_test

import (
	"context"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/internal/cli/install"
)

// A ztunnel that drains for an hour beside the next one, which serves, is not waited for, though the status of the DaemonSet
// counts it; that the next one is not ready is.
func TestOldPodsThatDrainAreNotWaitedFor(t *testing.T) {
	i, _ := installer(t)
	ctx := t.Context()
	if _, err := i.Apply(ctx, install.Request{}); err != nil {
		t.Fatal(err)
	}
	sets := i.Cluster.AppsV1().DaemonSets(i.Cluster.System)
	d, err := sets.Get(ctx, "ambit-ztunnel", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d.Status = appsv1.DaemonSetStatus{ObservedGeneration: d.Generation, DesiredNumberScheduled: 1}
	if _, err := sets.UpdateStatus(ctx, d, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	pods := i.Cluster.CoreV1().Pods(i.Cluster.System)
	make1 := func(name, generation string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"pod-template-generation": generation}}, Spec: *d.Spec.Template.Spec.DeepCopy()}
		for k, v := range d.Spec.Selector.MatchLabels {
			p.Labels[k] = v
		}
		p.Spec.NodeName, p.Spec.PriorityClassName, p.Spec.ServiceAccountName = "n1", "", "default"
		made, err := pods.Create(ctx, p, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	make1("old", "0")
	if err := pods.Delete(ctx, "old", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if old, err := pods.Get(ctx, "old", metav1.GetOptions{}); err != nil || old.DeletionTimestamp == nil {
		t.Fatalf("the old one does not drain: %v", err)
	}
	if c := ztunnels(ctx, t, i); c.Done() {
		t.Errorf("there is no new one, and it is %s", c.String())
	}
	fresh := make1("new", d.Annotations[appsv1.DeprecatedTemplateGeneration])
	if c := ztunnels(ctx, t, i); c.Done() {
		t.Errorf("the new one is not ready, and it is %s", c.String())
	}
	fresh.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	if _, err := pods.UpdateStatus(ctx, fresh, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if c := ztunnels(ctx, t, i); !c.Done() {
		t.Errorf("the new one is ready, and it is %s", c.String())
	}
}

func ztunnels(ctx context.Context, t *testing.T, i *install.Installer) install.Component {
	t.Helper()
	all, err := i.Components(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if c.Name == "ambit-ztunnel" {
			return c
		}
	}
	t.Fatal("no ztunnel")
	return install.Component{}
}
