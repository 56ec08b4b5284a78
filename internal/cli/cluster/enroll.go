package cluster

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/internal/cli"
	"github.com/ambit-mesh/ambit/internal/cli/install"
	"github.com/ambit-mesh/ambit/internal/cli/kube"
)

func newEnroll(s cli.Streams) *cobra.Command {
	return membership(s, "enroll NAMESPACE...", "Bring the pods of namespaces into the mesh",
		"Sets the label "+graph.LabelDataplaneMode+"="+graph.ModeAmbient+" and waits until all running pods are captured. No pod is restarted.",
		"  ambit enroll shop", graph.ModeAmbient)
}

func newUnenroll(s cli.Streams) *cobra.Command {
	return membership(s, "unenroll NAMESPACE...", "Take the pods of namespaces out of the mesh",
		"Removes the label "+graph.LabelDataplaneMode+" and waits until all pods are released. No pod is restarted.",
		"  ambit unenroll shop", "")
}

func membership(s cli.Streams, use, short, long, example, mode string) *cobra.Command {
	var w waitFlags
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Example: example, Args: cli.Exactly(cobra.MinimumNArgs(1))}
	f := addCluster(cmd, s)
	w.add(cmd, "pods are as the label says", 2*time.Minute)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		i, err := f.installer(cmd.Context())
		if err != nil {
			return err
		}
		for _, ns := range args {
			if err := i.Enrol(cmd.Context(), ns, mode, w.bound()); apierrors.IsNotFound(err) {
				return fmt.Errorf("there is no namespace %s: see kubectl get namespaces", ns)
			} else if err != nil {
				return fmt.Errorf("namespace %s: %w", ns, err)
			}
		}
		return nil
	}
	return cmd
}

// meshStatus is what ambit status shows.
type meshStatus struct {
	Installed  string              `json:"installed,omitempty"`
	Components []install.Component `json:"components"`
	Namespaces []namespaceStatus   `json:"namespaces"`
	Waypoints  []waypointStatus    `json:"waypoints"`
	Problems   []install.Finding   `json:"problems"`
}

type namespaceStatus struct {
	Name     string `json:"name"`
	Label    string `json:"label,omitempty"`
	Waypoint string `json:"waypoint,omitempty"`
	Enrolled int    `json:"enrolled"`
	Captured int    `json:"captured"`
}

type waypointStatus struct {
	Namespace  string   `json:"namespace"`
	Name       string   `json:"name"`
	For        string   `json:"for"`
	Accepted   bool     `json:"accepted"`
	Programmed bool     `json:"programmed"`
	Addresses  []string `json:"addresses,omitempty"`
	Message    string   `json:"message,omitempty"`
}

func newStatus(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "Show the mesh of a cluster: components, namespaces, waypoints, problems",
		Long:    "Shows what is installed, which namespaces are enrolled and how many of their pods are captured, waypoints and\nproblems. The exit code is 3 if there are problems.",
		Example: "  ambit status\n  ambit status -o json", Args: cli.Exactly(cobra.NoArgs),
	}
	f, out := addCluster(cmd, s), cli.AddFormat(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		i, err := f.installer(cmd.Context())
		if err != nil {
			return err
		}
		st, err := statusOf(cmd.Context(), i)
		if err != nil {
			return err
		}
		if err := out.Print(s.Out, st, func(w *tabwriter.Writer) { meshTable(w, st) }); err != nil {
			return err
		}
		return failed(st.Problems)
	}
	return cmd
}

func statusOf(ctx context.Context, i *install.Installer) (*meshStatus, error) {
	st := &meshStatus{Namespaces: []namespaceStatus{}, Problems: []install.Finding{}}
	findings, err := i.After(ctx)
	if err != nil {
		return nil, err
	}
	for _, f := range findings {
		if f.Level != install.OK {
			st.Problems = append(st.Problems, f)
		} else if f.Check == "release" {
			st.Installed = f.Message
		}
	}
	if st.Components, err = i.Components(ctx); err != nil {
		return nil, err
	}
	if st.Waypoints, err = waypointsOf(ctx, i.Cluster, ""); err != nil {
		return nil, err
	}
	members, err := i.Members(ctx)
	if err != nil {
		return nil, err
	}
	namespaces, err := i.Cluster.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, ns := range namespaces.Items {
		n := namespaceStatus{Name: ns.Name, Label: ns.Labels[graph.LabelDataplaneMode], Waypoint: ns.Labels[graph.LabelUseWaypoint]}
		for _, m := range members {
			if m.Namespace == ns.Name && m.Enrolled {
				n.Enrolled++
			}
			if m.Namespace == ns.Name && m.Captured {
				n.Captured++
			}
		}
		if n.Label == graph.ModeAmbient || n.Waypoint != "" || n.Enrolled+n.Captured > 0 {
			st.Namespaces = append(st.Namespaces, n)
		}
	}
	return st, nil
}

func meshTable(w *tabwriter.Writer, st *meshStatus) {
	if st.Installed != "" {
		fmt.Fprintf(w, "ambit: %s\n\n", st.Installed)
	}
	cli.Row(w, "COMPONENT", "VERSION", "READY", "MESSAGE")
	for _, c := range st.Components {
		cli.Row(w, c.Name, c.Version, fmt.Sprintf("%d/%d", c.Ready, c.Desired), c.Message)
	}
	fmt.Fprintln(w)
	cli.Row(w, "NAMESPACE", "LABEL", "ENROLLED", "CAPTURED", "WAYPOINT")
	for _, n := range st.Namespaces {
		cli.Row(w, n.Name, n.Label, n.Enrolled, n.Captured, n.Waypoint)
	}
	if len(st.Waypoints) > 0 {
		fmt.Fprintln(w)
		waypointTable(w, st.Waypoints)
	}
	var lines []string
	for _, p := range st.Problems {
		lines = append(lines, fmt.Sprintf("%s: %s: %s", p.Check, p.Message, p.Hint))
	}
	cli.List(w, "PROBLEMS", lines)
}

// waypointsOf gives the Gateways of our class.
func waypointsOf(ctx context.Context, c *kube.Cluster, namespace string) ([]waypointStatus, error) {
	items, err := c.List(ctx, kube.Gateways(), namespace)
	if err != nil {
		return nil, err
	}
	out := []waypointStatus{}
	for _, u := range items {
		if w, ok := waypointOf(&u); ok {
			out = append(out, w)
		}
	}
	return out, nil
}

func waypointOf(u *unstructured.Unstructured) (waypointStatus, bool) {
	var gw gatewayv1.Gateway
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &gw); err != nil || gw.Spec.GatewayClassName != graph.WaypointClass {
		return waypointStatus{}, false
	}
	w := waypointStatus{Namespace: gw.Namespace, Name: gw.Name, For: gw.Labels[graph.LabelWaypointFor]}
	if w.For == "" {
		w.For = graph.ForService
	}
	for kind, to := range map[gatewayv1.GatewayConditionType]*bool{gatewayv1.GatewayConditionAccepted: &w.Accepted, gatewayv1.GatewayConditionProgrammed: &w.Programmed} {
		if cond := meta.FindStatusCondition(gw.Status.Conditions, string(kind)); cond != nil {
			*to = cond.Status == metav1.ConditionTrue
			if !*to {
				w.Message = cond.Message
			}
		}
	}
	for _, a := range gw.Status.Addresses {
		w.Addresses = append(w.Addresses, a.Value)
	}
	return w, true
}
