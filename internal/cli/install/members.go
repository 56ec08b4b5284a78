package install

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/internal/cli/kube"
)

// Member is a pod that labels enrol, or that is captured.
type Member struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Node      string `json:"node"`
	// Enrolled is what labels want, Captured what is.
	Enrolled bool `json:"enrolled"`
	Captured bool `json:"captured"`
	// Message says why the two differ.
	Message string `json:"message,omitempty"`
}

// Members gives the pods that are enrolled or captured.
func (i *Installer) Members(ctx context.Context) ([]Member, error) {
	namespaces, err := i.Cluster.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	mode := make(map[string]string)
	for _, ns := range namespaces.Items {
		mode[ns.Name] = ns.Labels[graph.LabelDataplaneMode]
	}
	pods, err := i.Cluster.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var out []Member
	for _, p := range pods.Items {
		if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		if m := member(&p, mode[p.Namespace]); m.Enrolled || m.Captured {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

func member(p *corev1.Pod, namespaceMode string) Member {
	m := Member{Namespace: p.Namespace, Name: p.Name, Node: p.Spec.NodeName}
	m.Enrolled = cmp.Or(p.Labels[graph.LabelDataplaneMode], namespaceMode) == graph.ModeAmbient
	if p.Spec.HostNetwork {
		// On the host's network there is nothing to capture.
		m.Enrolled = false
	}
	m.Message = "no node agent has said anything yet"
	for _, c := range p.Status.Conditions {
		if c.Type == ConditionCaptured {
			m.Captured, m.Message = c.Status == corev1.ConditionTrue, cmp.Or(c.Message, c.Reason)
		}
	}
	if m.Captured == m.Enrolled {
		m.Message = ""
	}
	return m
}

// Enrol sets, or with an empty mode removes, the label of a namespace and waits
// until its pods are captured, or released.
func (i *Installer) Enrol(ctx context.Context, namespace, mode string, timeout time.Duration) error {
	if err := i.Label(ctx, namespace, graph.LabelDataplaneMode, mode); err != nil {
		return err
	}
	if timeout <= 0 {
		return nil
	}
	return i.Settled(ctx, timeout, func(m *Member) bool { return m.Namespace == namespace })
}

// Settled waits until the pods that are meant are as labels want.
func (i *Installer) Settled(ctx context.Context, timeout time.Duration, meant func(*Member) bool) error {
	return i.until(ctx, timeout, func(ctx context.Context) (lines, waiting []string, err error) {
		members, err := i.Members(ctx)
		for _, m := range members {
			switch {
			case !meant(&m):
			case m.Captured == m.Enrolled:
				lines = append(lines, fmt.Sprintf("pod %s/%s: captured", m.Namespace, m.Name))
			case m.Enrolled:
				waiting = append(waiting, fmt.Sprintf("pod %s/%s: not captured: %s", m.Namespace, m.Name, m.Message))
			default:
				waiting = append(waiting, fmt.Sprintf("pod %s/%s: not released", m.Namespace, m.Name))
			}
		}
		return append(lines, waiting...), waiting, err
	})
}

// Label sets a label of a namespace, or removes it if the value is empty.
func (i *Installer) Label(ctx context.Context, namespace, key, value string) error {
	var v any
	if value != "" {
		v = value
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]any{key: v}}})
	if err != nil {
		return err
	}
	_, err = i.Cluster.CoreV1().Namespaces().Patch(ctx, namespace, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// Programmed waits until a Gateway is.
func (i *Installer) Programmed(ctx context.Context, timeout time.Duration, namespace, name string) error {
	return i.until(ctx, timeout, func(ctx context.Context) ([]string, []string, error) {
		u, err := i.Cluster.Dynamic.Resource(kube.Gateways()).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, nil, err
		}
		line := fmt.Sprintf("waypoint %s/%s: ", namespace, name)
		conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
		for _, c := range conditions {
			m, _ := c.(map[string]any)
			if m["type"] != "Programmed" || m["observedGeneration"] != u.GetGeneration() {
				continue
			}
			line += fmt.Sprint(m["message"])
			if m["status"] == "True" {
				return []string{line}, nil, nil
			}
			return []string{line}, []string{line}, nil
		}
		line += "the control plane has not looked at it yet"
		return []string{line}, []string{line}, nil
	})
}
