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
	"helm.sh/helm/v4/pkg/release/common"
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
	agent, err := i.agent(ctx)
	if err != nil {
		return err
	}
	if err := i.uninstall(timeout, true); err != nil {
		return err
	}
	if err := i.ended(ctx, timeout); err != nil {
		return err
	}
	if agent == nil {
		i.Say("nodes: no node agent is or was installed from here; there is nothing to clean")
	} else if err := i.clean(ctx, agent, timeout); err != nil {
		return err
	}
	// Until the nodes are clean the release's record says how to clean them.
	if err := i.uninstall(timeout, false); err != nil {
		return err
	}
	return i.leftovers(ctx)
}

// uninstall deletes the release's objects, and its record unless that is kept.
func (i *Installer) uninstall(timeout time.Duration, keep bool) error {
	last, err := i.last()
	if err != nil || last == nil || keep && last.Info.Status == common.StatusUninstalled {
		return err
	}
	cfg, err := i.configuration()
	if err != nil {
		return err
	}
	un := action.NewUninstall(cfg)
	un.KeepHistory, un.WaitStrategy, un.Timeout, un.DeletionPropagation = keep, helmkube.HookOnlyStrategy, timeout, "background"
	if _, err := un.Run(chart.Release); err != nil {
		return fmt.Errorf("uninstall the release: %w", err)
	}
	if keep {
		i.Say("release %s: uninstalled", chart.Release)
	}
	return nil
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
		{Version: "v1", Resource: "services"},
		{Version: "v1", Resource: "serviceaccounts"},
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
