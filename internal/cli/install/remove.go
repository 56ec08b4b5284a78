package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"helm.sh/helm/v4/pkg/action"
	helmkube "helm.sh/helm/v4/pkg/kube"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/internal/cli/chart"
	"github.com/ambit-mesh/ambit/internal/cli/kube"
)

// group is that of our CRDs.
const group = "ambit-mesh.io"

// startupTaint keeps pods off fresh nodes whose agent is not ready.
const startupTaint = "ambit-mesh.io/agent-not-ready"

// Policies counts the objects of our kinds, by kind.
func (i *Installer) Policies(ctx context.Context) (map[string]int, error) {
	crds, err := i.crds(ctx)
	if err != nil {
		return nil, err
	}
	out := make(map[string]int)
	for _, crd := range crds {
		resource, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "plural")
		kind, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "kind")
		versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
		if len(versions) == 0 {
			continue
		}
		first, _ := versions[0].(map[string]any)
		name, _ := first["name"].(string)
		list, err := i.Cluster.List(ctx, schema.GroupVersionResource{Group: group, Version: name, Resource: resource}, "")
		if err != nil {
			return nil, err
		}
		if len(list) > 0 {
			out[kind] = len(list)
		}
	}
	return out, nil
}

func (i *Installer) crds(ctx context.Context) ([]unstructured.Unstructured, error) {
	all, err := i.Cluster.List(ctx, kube.CRDs(), "")
	return slices.DeleteFunc(all, func(u unstructured.Unstructured) bool { return !strings.HasSuffix(u.GetName(), "."+group) }), err
}

// Release takes every pod out of the mesh, by labels, and waits until no pod is
// captured any more.
func (i *Installer) Release(ctx context.Context, timeout time.Duration) error {
	namespaces, err := i.Cluster.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: graph.LabelDataplaneMode + "=" + graph.ModeAmbient})
	if err != nil {
		return err
	}
	for _, ns := range namespaces.Items {
		if err := i.Label(ctx, ns.Name, graph.LabelDataplaneMode, ""); err != nil {
			return fmt.Errorf("namespace %s: %w", ns.Name, err)
		}
		i.Say("namespace %s: taken out of the mesh", ns.Name)
	}
	members, err := i.Members(ctx)
	if err != nil {
		return err
	}
	for _, m := range members {
		if m.Enrolled { // by a label of its own
			patch := fmt.Appendf(nil, `{"metadata":{"labels":{%q:null}}}`, graph.LabelDataplaneMode)
			if _, err := i.Cluster.CoreV1().Pods(m.Namespace).Patch(ctx, m.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("pod %s/%s: %w", m.Namespace, m.Name, err)
			}
		}
	}
	return i.Settled(ctx, timeout, func(m *Member) bool { return m.Captured })
}

// Remove uninstalls the release, cleans the nodes, and takes away what the control
// plane left in the cluster. Users' objects stay.
func (i *Installer) Remove(ctx context.Context, timeout time.Duration) error {
	agent, err := i.Cluster.AppsV1().DaemonSets(i.Cluster.System).Get(ctx, "ambit-nodeagent", metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	cfg, err := i.configuration()
	if err != nil {
		return err
	}
	un := action.NewUninstall(cfg)
	un.IgnoreNotFound, un.WaitStrategy, un.Timeout, un.DeletionPropagation = true, helmkube.HookOnlyStrategy, timeout, "background"
	if _, err := un.Run(chart.Release); err != nil {
		return fmt.Errorf("uninstall the release: %w", err)
	}
	i.Say("release %s: uninstalled", chart.Release)
	if err := i.ended(ctx, timeout); err != nil {
		return err
	}
	if agent != nil && agent.Name != "" {
		if err := i.clean(ctx, agent, timeout); err != nil {
			return err
		}
	}
	return i.leftovers(ctx)
}

// ended waits until no pod of the release runs any more.
func (i *Installer) ended(ctx context.Context, timeout time.Duration) error {
	return i.until(ctx, timeout, func(ctx context.Context) (lines, waiting []string, err error) {
		pods, err := i.Cluster.CoreV1().Pods(i.Cluster.System).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/part-of=ambit"})
		if err != nil {
			return nil, nil, err
		}
		for _, p := range pods.Items {
			waiting = append(waiting, "pod "+p.Name+": ending")
		}
		return waiting, waiting, nil
	})
}

// clean runs the node agent's own clean-up on each node that has had one.
func (i *Installer) clean(ctx context.Context, agent *appsv1.DaemonSet, timeout time.Duration) error {
	nodes, err := i.Cluster.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: agent.Spec.Template.Spec.NodeSelector})})
	if err != nil {
		return err
	}
	pods := i.Cluster.CoreV1().Pods(i.Cluster.System)
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
		return fmt.Errorf("nodes are not as they were: %w: repeat ambit uninstall", err)
	}
	for name := range names {
		if err := pods.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
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
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "ambit-cleanup-", Labels: map[string]string{"app.kubernetes.io/name": "ambit-cleanup", graph.LabelDataplaneMode: graph.ModeNone}},
		Spec:       *spec,
	}
}

// leftovers removes what the control plane made outside of the release.
func (i *Installer) leftovers(ctx context.Context) error {
	maps, err := i.Cluster.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + RootConfigMap})
	if err != nil {
		return err
	}
	var errs []error
	keep := func(err error) {
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	for _, m := range maps.Items {
		keep(i.Cluster.CoreV1().ConfigMaps(m.Namespace).Delete(ctx, m.Name, metav1.DeleteOptions{}))
	}
	keep(i.Cluster.CoreV1().Secrets(i.Cluster.System).Delete(ctx, "ambit-ca", metav1.DeleteOptions{}))
	keep(i.Cluster.CoordinationV1().Leases(i.Cluster.System).Delete(ctx, "ambit-controlplane", metav1.DeleteOptions{}))
	nodes, err := i.Cluster.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, n := range nodes.Items {
		left := slices.DeleteFunc(slices.Clone(n.Spec.Taints), func(t corev1.Taint) bool { return t.Key == startupTaint })
		if len(left) == len(n.Spec.Taints) {
			continue
		}
		// Against the version that was read, so that nobody else's taint is lost.
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": n.ResourceVersion}, "spec": map[string]any{"taints": left}})
		if err != nil {
			return err
		}
		_, err = i.Cluster.CoreV1().Nodes().Patch(ctx, n.Name, types.MergePatchType, patch, metav1.PatchOptions{})
		keep(err)
	}
	keep(i.waypoints(ctx))
	return errors.Join(errs...)
}

// waypoints removes what Gateways of our class were turned into: nobody would keep
// it. The Gateways are their users'.
func (i *Installer) waypoints(ctx context.Context) error {
	list, err := i.Cluster.List(ctx, kube.Gateways(), "")
	if err != nil {
		return err
	}
	for _, gw := range list {
		if class, _, _ := unstructured.NestedString(gw.Object, "spec", "gatewayClassName"); class != graph.WaypointClass {
			continue
		}
		ns, name := gw.GetNamespace(), gw.GetName()
		for _, gvr := range provisioned() {
			r := i.Cluster.Dynamic.Resource(gvr).Namespace(ns)
			o, err := r.Get(ctx, name, metav1.GetOptions{})
			if err == nil && metav1.IsControlledBy(o, &gw) {
				err = r.Delete(ctx, name, metav1.DeleteOptions{})
			}
			if err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("%s %s/%s: %w", gvr.Resource, ns, name, err)
			}
		}
		i.Say("gateway %s/%s: its waypoint is removed; the Gateway stays", ns, name)
	}
	return nil
}

// provisioned are the kinds that a waypoint consists of.
func provisioned() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		{Group: "autoscaling", Version: "v2", Resource: "horizontalpodautoscalers"},
		{Group: "policy", Version: "v1", Resource: "poddisruptionbudgets"},
		{Group: "apps", Version: "v1", Resource: "deployments"},
		{Version: "v1", Resource: "services"}, {Version: "v1", Resource: "serviceaccounts"},
	}
}

// RemoveDefinitions deletes our CRDs, and with them all their objects.
func (i *Installer) RemoveDefinitions(ctx context.Context) error {
	crds, err := i.crds(ctx)
	if err != nil {
		return err
	}
	for _, crd := range crds {
		if err := i.Cluster.Dynamic.Resource(kube.CRDs()).Delete(ctx, crd.GetName(), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	i.Say("%d custom resource definitions: removed", len(crds))
	return nil
}

// RemoveNamespace deletes the namespace of the mesh if this program made it.
func (i *Installer) RemoveNamespace(ctx context.Context) error {
	ns, err := i.Cluster.CoreV1().Namespaces().Get(ctx, i.Cluster.System, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && ns.Labels[managedBy] != "ambit" {
		return nil
	}
	if err == nil {
		err = i.Cluster.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{})
	}
	if err == nil {
		i.Say("namespace %s: removed", ns.Name)
	}
	return err
}
