package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/ambit-mesh/ambit/controlplane/graph"
)

const (
	nameAgent   = "ambit-nodeagent"
	nameCleaner = "ambit-cleanup"
	labelName   = "app.kubernetes.io/name"
)

// agent gives the node agent's DaemonSet: the one in the cluster or, when that has
// been deleted already, the one of the release. nil if there is none.
func (i *Installer) agent(ctx context.Context) (*appsv1.DaemonSet, error) {
	d, err := i.Cluster.AppsV1().DaemonSets(i.Cluster.System).Get(ctx, nameAgent, metav1.GetOptions{})
	if err == nil {
		return d, nil
	} else if !apierrors.IsNotFound(err) {
		return nil, err
	}
	rel, err := i.last()
	if err != nil || rel == nil {
		return nil, err
	}
	return agentOf(rel.Manifest)
}

// agentOf finds the node agent's DaemonSet in the objects of a release.
func agentOf(manifest string) (*appsv1.DaemonSet, error) {
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(manifest), 4096)
	for {
		var d appsv1.DaemonSet
		switch err := decoder.Decode(&d); {
		case errors.Is(err, io.EOF):
			return nil, nil
		case err != nil:
			return nil, fmt.Errorf("the manifest of the release: %w", err)
		case d.Kind == "DaemonSet" && d.Name == nameAgent && len(d.Spec.Template.Spec.Containers) > 0:
			return &d, nil
		}
	}
}

// lastGrace is what pods have to end, in seconds, when the mesh is uninstalled. Every pod of the cluster is released by
// then, and only a ztunnel that was replaced earlier may still have a connection.
const lastGrace = 30

// ended waits until no pod of the release runs any more.
func (i *Installer) ended(ctx context.Context, timeout time.Duration) error {
	pods := i.Cluster.CoreV1().Pods(i.Cluster.System)
	list, err := pods.List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/part-of=ambit"})
	if err != nil {
		return err
	}
	for _, p := range list.Items {
		if p.DeletionGracePeriodSeconds == nil || *p.DeletionGracePeriodSeconds <= lastGrace {
			continue
		}
		if err := pods.Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(lastGrace))}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return i.gone(ctx, timeout, "app.kubernetes.io/part-of=ambit")
}

// gone waits until no pod of the namespace of the mesh has a label.
func (i *Installer) gone(ctx context.Context, timeout time.Duration, selector string) error {
	return i.until(ctx, timeout, func(ctx context.Context) (lines, waiting []string, err error) {
		pods, err := i.Cluster.CoreV1().Pods(i.Cluster.System).List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			return nil, nil, err
		}
		for _, p := range pods.Items {
			waiting = append(waiting, fmt.Sprintf("pod %s on node %s: ending", p.Name, p.Spec.NodeName))
		}
		return waiting, waiting, nil
	})
}

// clean runs the node agent's own clean-up on each node that has had one. What an
// earlier attempt left is removed first: it says nothing of what came after it.
func (i *Installer) clean(ctx context.Context, agent *appsv1.DaemonSet, timeout time.Duration) error {
	pods, selector := i.Cluster.CoreV1().Pods(i.Cluster.System), labelName+"="+nameCleaner
	if err := i.deleteCleaners(ctx, selector); err != nil {
		return err
	}
	if err := i.gone(ctx, timeout, selector); err != nil {
		return fmt.Errorf("clean-up pods of an earlier attempt: %w", err)
	}
	nodes, err := i.Cluster.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: agent.Spec.Template.Spec.NodeSelector})})
	if err != nil {
		return err
	}
	names := make(map[string]string)
	for _, n := range nodes.Items {
		p := cleaner(agent, n.Name)
		p.Namespace = i.Cluster.System
		made, err := pods.Create(ctx, p, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("clean node %s: %w", n.Name, err)
		}
		names[made.Name] = n.Name
	}
	err = i.until(ctx, timeout, func(ctx context.Context) (lines, waiting []string, err error) {
		for name, node := range names {
			p, err := pods.Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return nil, nil, err
			}
			line := "node " + node + ": cleaned"
			if p.Status.Phase != corev1.PodSucceeded {
				line = fmt.Sprintf("node %s: being cleaned by pod %s, %s %s", node, name, p.Status.Phase, reason(p))
				waiting = append(waiting, line)
			}
			lines = append(lines, line)
		}
		slices.Sort(lines)
		return lines, waiting, nil
	})
	if err != nil {
		return fmt.Errorf("nodes are not as they were: %w\nrepeat ambit uninstall; a node that is gone for good must be deleted first", err)
	}
	return i.deleteCleaners(ctx, selector)
}

// deleteCleaners deletes the clean-up pods that there are.
func (i *Installer) deleteCleaners(ctx context.Context, selector string) error {
	pods := i.Cluster.CoreV1().Pods(i.Cluster.System)
	list, err := pods.List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return err
	}
	for _, p := range list.Items {
		if err := pods.Delete(ctx, p.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// cleaner is a node agent's pod that undoes what the agent did to a node, and ends.
func cleaner(agent *appsv1.DaemonSet, node string) *corev1.Pod {
	spec := agent.Spec.Template.Spec.DeepCopy()
	spec.NodeName, spec.NodeSelector, spec.RestartPolicy = node, nil, corev1.RestartPolicyOnFailure
	spec.ServiceAccountName, spec.DeprecatedServiceAccount = "default", ""
	spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	c := &spec.Containers[0]
	c.Args = append([]string{"--uninstall"}, c.Args...)
	c.ReadinessProbe, c.LivenessProbe, c.StartupProbe, c.Ports = nil, nil, nil, nil
	c.VolumeMounts = slices.DeleteFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "ambit" })
	spec.Volumes = slices.DeleteFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == "ambit" })
	mountParents(spec)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: nameCleaner + "-", Labels: map[string]string{labelName: nameCleaner, graph.LabelDataplaneMode: graph.ModeNone}},
		Spec:       *spec,
	}
}

// mountParents has the pod see the parents of the agent's own folders on the node at the same places as the agent sees
// these: a folder that is a mount of its own could not be removed.
func mountParents(spec *corev1.PodSpec) {
	c := &spec.Containers[0]
	at := make(map[string]string) // volumes of parents, by where they are mounted
	gone := make(map[string]bool)
	for _, v := range spec.Volumes {
		i := slices.IndexFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == v.Name })
		if v.HostPath == nil || i < 0 || !slices.Contains([]string{"zds", "cni-socket", "state"}, v.Name) || path.Base(v.HostPath.Path) != path.Base(c.VolumeMounts[i].MountPath) {
			continue
		}
		gone[v.Name] = true
		at[path.Dir(c.VolumeMounts[i].MountPath)] = path.Dir(v.HostPath.Path)
	}
	spec.Volumes = slices.DeleteFunc(spec.Volumes, func(v corev1.Volume) bool { return gone[v.Name] })
	c.VolumeMounts = slices.DeleteFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return gone[m.Name] })
	for i, mount := range slices.Sorted(maps.Keys(at)) {
		name := fmt.Sprintf("parent-%d", i)
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: at[mount]}}})
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: mount})
	}
}
