package install

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// poll is the pause between two looks at what is awaited.
const poll = time.Second

// Component is a Deployment or a DaemonSet of the mesh, as it is.
type Component struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Version string `json:"version"`
	Desired int32  `json:"desired"`
	Updated int32  `json:"updated"`
	Ready   int32  `json:"ready"`
	// Message says what is not yet as it should be, and why as far as pods tell.
	Message string `json:"message,omitempty"`
	image   string
	labels  map[string]string
}

// Done reports whether all pods are new and ready.
func (c *Component) Done() bool { return c.Message == "" }

// String is a line of progress.
func (c *Component) String() string {
	text := fmt.Sprintf("%s %s: %d of %d ready", strings.ToLower(c.Kind), c.Name, c.Ready, c.Desired)
	if c.Message != "" {
		text += ": " + c.Message
	}
	return text
}

// TimeoutError is what was waited for in vain.
type TimeoutError struct {
	After   time.Duration
	Waiting []string
}

// Error names each object.
func (e *TimeoutError) Error() string {
	return fmt.Sprintf("not ready after %s:\n  %s\nlook at ambit check, and at kubectl describe of what is named", e.After, strings.Join(e.Waiting, "\n  "))
}

// Components gives what runs in the namespace of the mesh.
func (i *Installer) Components(ctx context.Context) ([]Component, error) {
	var out []Component
	options := metav1.ListOptions{LabelSelector: "app.kubernetes.io/part-of=ambit"}
	deployments, err := i.Cluster.AppsV1().Deployments(i.Cluster.System).List(ctx, options)
	if err != nil {
		return nil, err
	}
	for _, d := range deployments.Items {
		out = append(out, deployment(&d))
	}
	sets, err := i.Cluster.AppsV1().DaemonSets(i.Cluster.System).List(ctx, options)
	if err != nil {
		return nil, err
	}
	for _, d := range sets.Items {
		now, err := i.succeeded(ctx, &d)
		if err != nil {
			return nil, err
		}
		out = append(out, daemonSet(&d, now))
	}
	for n := range out {
		if c := &out[n]; !c.Done() {
			c.Message += i.why(ctx, c.labels)
		}
	}
	return out, nil
}

func deployment(d *appsv1.Deployment) Component {
	want := int32(1)
	if d.Spec.Replicas != nil {
		want = *d.Spec.Replicas
	}
	c := Component{Kind: "Deployment", Name: d.Name, Desired: want, Updated: d.Status.UpdatedReplicas, Ready: d.Status.ReadyReplicas}
	c.of(&d.Spec.Template, d.Spec.Selector)
	switch {
	case d.Status.ObservedGeneration < d.Generation:
		c.Message = "the cluster has not looked at it yet"
	case d.Status.UpdatedReplicas < want:
		c.Message = fmt.Sprintf("%d of %d are new", d.Status.UpdatedReplicas, want)
	case d.Status.AvailableReplicas < want:
		c.Message = fmt.Sprintf("%d of %d are available", d.Status.AvailableReplicas, want)
	case d.Status.Replicas > d.Status.UpdatedReplicas:
		c.Message = fmt.Sprintf("%d old ones are ending", d.Status.Replicas-d.Status.UpdatedReplicas)
	}
	return c
}

// succeeded counts the nodes of a DaemonSet by the pods that are not ending. The status of the DaemonSet counts the oldest
// pod of each node, also while that drains and the next one serves already, which may be an hour for a ztunnel.
func (i *Installer) succeeded(ctx context.Context, d *appsv1.DaemonSet) (appsv1.DaemonSetStatus, error) {
	s := d.Status
	generation, ok := d.Annotations[appsv1.DeprecatedTemplateGeneration]
	if !ok || s.ObservedGeneration < d.Generation || s.UpdatedNumberScheduled >= s.DesiredNumberScheduled && s.NumberAvailable >= s.DesiredNumberScheduled {
		return s, nil
	}
	pods, err := i.Cluster.CoreV1().Pods(d.Namespace).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(d.Spec.Selector)})
	if err != nil {
		return s, err
	}
	updated, ready := make(map[string]bool), make(map[string]bool)
	for _, p := range pods.Items {
		if p.DeletionTimestamp != nil || p.Labels[templateGeneration] != generation {
			continue
		}
		updated[p.Spec.NodeName] = true
		if slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		}) {
			ready[p.Spec.NodeName] = true
		}
	}
	if len(updated) == int(s.DesiredNumberScheduled) {
		s.UpdatedNumberScheduled, s.NumberReady, s.NumberAvailable = int32(len(updated)), int32(len(ready)), int32(len(ready))
	}
	return s, nil
}

// templateGeneration is the label by which a DaemonSet knows its new pods.
const templateGeneration = "pod-template-generation"

func daemonSet(d *appsv1.DaemonSet, s appsv1.DaemonSetStatus) Component {
	c := Component{Kind: "DaemonSet", Name: d.Name, Desired: s.DesiredNumberScheduled, Updated: s.UpdatedNumberScheduled, Ready: s.NumberReady}
	c.of(&d.Spec.Template, d.Spec.Selector)
	switch {
	case s.ObservedGeneration < d.Generation:
		c.Message = "the cluster has not looked at it yet"
	case s.UpdatedNumberScheduled < s.DesiredNumberScheduled:
		c.Message = fmt.Sprintf("%d of %d are new", s.UpdatedNumberScheduled, s.DesiredNumberScheduled)
	case s.NumberAvailable < s.DesiredNumberScheduled:
		c.Message = fmt.Sprintf("%d of %d are available", s.NumberAvailable, s.DesiredNumberScheduled)
	}
	return c
}

func (c *Component) of(t *corev1.PodTemplateSpec, s *metav1.LabelSelector) {
	c.Version, c.labels = t.Labels["app.kubernetes.io/version"], s.MatchLabels
	if len(t.Spec.Containers) > 0 {
		c.image = t.Spec.Containers[0].Image
	}
}

// why asks the pods for a reason: an image that is not there, a scheduler that
// finds no place, a program that ends.
func (i *Installer) why(ctx context.Context, labels map[string]string) string {
	pods, err := i.Cluster.CoreV1().Pods(i.Cluster.System).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: labels})})
	if err != nil {
		return ""
	}
	for _, p := range pods.Items {
		if text := reason(&p); text != "" {
			return fmt.Sprintf("; pod %s: %s", p.Name, text)
		}
	}
	return ""
}

func reason(p *corev1.Pod) string {
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if w := s.State.Waiting; w != nil && w.Reason != "ContainerCreating" && w.Reason != "PodInitializing" {
			return strings.TrimSpace(w.Reason + " " + w.Message)
		}
		if t := s.LastTerminationState.Terminated; t != nil && !s.Ready {
			return fmt.Sprintf("ended with code %d, %d restarts: see kubectl logs -p", t.ExitCode, s.RestartCount)
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return c.Message
		}
	}
	return ""
}

// Wait waits until all components are new and ready, and says what changes.
func (i *Installer) Wait(ctx context.Context, timeout time.Duration) error {
	return i.until(ctx, timeout, func(ctx context.Context) ([]string, []string, error) {
		list, err := i.Components(ctx)
		var lines, waiting []string
		for n := range list {
			lines = append(lines, list[n].String())
			if !list[n].Done() {
				waiting = append(waiting, list[n].String())
			}
		}
		return lines, waiting, err
	})
}

// until looks until nothing is waited for. Lines that were not there before are
// said.
func (i *Installer) until(ctx context.Context, timeout time.Duration, look func(context.Context) (lines, waiting []string, err error)) error {
	deadline, tick := time.NewTimer(timeout), time.NewTicker(poll)
	defer deadline.Stop()
	defer tick.Stop()
	said := make(map[string]bool)
	for {
		lines, waiting, err := look(ctx)
		if err != nil {
			return err
		}
		now := make(map[string]bool)
		for _, l := range lines {
			now[l] = true
			if !said[l] {
				i.Say("%s", l)
			}
		}
		said = now
		if len(waiting) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return &TimeoutError{timeout, waiting}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
