package install_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/internal/cli/install"
)

// Nodes that could not be cleaned are cleaned by a repeated uninstall, though the
// release and its DaemonSet are gone, and its clean-up pods of before are in the way.
func TestCleanAgain(t *testing.T) {
	i, _ := installer(t)
	ctx := t.Context()
	if _, err := i.Cluster.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{corev1.LabelOSStable: "linux"}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Apply(ctx, install.Request{}); err != nil {
		t.Fatal(err)
	}
	var timeout *install.TimeoutError
	if err := i.Remove(ctx, 10*time.Millisecond); !errors.As(err, &timeout) {
		t.Fatalf("no kubelet runs the clean-up, but: %v", err)
	}
	if _, err := i.Current(); !errors.Is(err, install.ErrNotInstalled) {
		t.Errorf("uninstalled, but: %v", err)
	}
	if sets, err := i.Cluster.AppsV1().DaemonSets(i.Cluster.System).List(ctx, metav1.ListOptions{}); err != nil || len(sets.Items) > 0 {
		t.Fatalf("%d DaemonSets are left, %v", len(sets.Items), err)
	}
	first := cleaners(t, i)
	if len(first) != 1 {
		t.Fatalf("%d clean-up pods", len(first))
	}
	// It can be installed again in this state, and uninstalled.
	if _, err := i.Apply(ctx, install.Request{}); err != nil {
		t.Fatalf("install after an uninstall that was not finished: %v", err)
	}
	if err := i.Remove(ctx, 10*time.Millisecond); !errors.As(err, &timeout) {
		t.Fatalf("the pod of before is in the way, but: %v", err)
	}
	var cleaned atomic.Int32
	end := kubelet(t, i, &cleaned)
	defer end()
	if err := i.Remove(ctx, time.Minute); err != nil {
		t.Fatal(err)
	}
	if cleaned.Load() != 1 {
		t.Errorf("%d clean-ups ran", cleaned.Load())
	}
	if left := slices.DeleteFunc(cleaners(t, i), func(p corev1.Pod) bool { return p.DeletionTimestamp != nil }); len(left) > 0 {
		t.Errorf("clean-up pods are left: %d", len(left))
	}
	secrets, err := i.Cluster.CoreV1().Secrets(i.Cluster.System).List(ctx, metav1.ListOptions{})
	if err != nil || len(secrets.Items) > 0 {
		t.Errorf("secrets are left: %v, %v", secrets, err)
	}
	// Once more there is nothing to do.
	if err := i.Remove(ctx, time.Minute); err != nil || cleaned.Load() != 1 {
		t.Errorf("repeated: %d clean-ups, %v", cleaned.Load(), err)
	}
}

func cleaners(t *testing.T, i *install.Installer) []corev1.Pod {
	t.Helper()
	list, err := i.Cluster.CoreV1().Pods(i.Cluster.System).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=ambit-cleanup"})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// kubelet runs clean-up pods, which succeed at once, and ends those that are
// deleted, until it is told to end.
func kubelet(t *testing.T, i *install.Installer, ran *atomic.Int32) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	pods := i.Cluster.CoreV1().Pods(i.Cluster.System)
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			list, err := pods.List(ctx, metav1.ListOptions{})
			if err != nil {
				continue
			}
			for _, p := range list.Items {
				switch {
				case p.DeletionTimestamp != nil:
					err = pods.Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
				case p.Status.Phase == corev1.PodPending && slices.Contains(p.Spec.Containers[0].Args, "--uninstall") && p.Spec.NodeName == "n1":
					p.Status.Phase = corev1.PodSucceeded
					if _, err = pods.UpdateStatus(ctx, &p, metav1.UpdateOptions{}); err == nil {
						ran.Add(1)
					}
				}
				if err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		}
	}()
	return func() { cancel(); <-done }
}
