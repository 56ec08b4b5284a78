package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/controlplane/provision"
	"github.com/ambit-mesh/ambit/internal/cli"
	"github.com/ambit-mesh/ambit/internal/cli/install"
	"github.com/ambit-mesh/ambit/internal/cli/kube"
)

// waypointFlags describe a waypoint.
type waypointFlags struct {
	name, namespace, purpose, from string
	replicas                       int
	bind                           bool
}

func (f *waypointFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVarP(&f.namespace, "namespace", "n", "", "namespace; that of the kubeconfig's context by default")
	flags.StringVar(&f.name, "name", "waypoint", "name of the Gateway")
	flags.StringVar(&f.purpose, "for", "service", "what it is for: service, workload, all or none")
	flags.StringVar(&f.from, "from", "Same", "whose services may use it: Same (namespace) or All")
	flags.IntVar(&f.replicas, "replicas", 0, "pods; as the control plane chooses if 0")
}

// gateway gives the object, judged as the control plane would.
func (f *waypointFlags) gateway() (*gatewayv1.Gateway, error) {
	gw := &gatewayv1.Gateway{
		TypeMeta:   metav1.TypeMeta{APIVersion: gatewayv1.GroupVersion.String(), Kind: "Gateway"},
		ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: f.name, Labels: map[string]string{graph.LabelWaypointFor: f.purpose}},
		Spec: gatewayv1.GatewaySpec{GatewayClassName: graph.WaypointClass, Listeners: []gatewayv1.Listener{{
			Name: "mesh", Port: graph.WaypointPort, Protocol: graph.ProtocolHBONE,
			AllowedRoutes: &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: new(gatewayv1.FromNamespaces(f.from))}},
		}}},
	}
	if f.replicas > 0 {
		gw.Annotations = map[string]string{provision.AnnotationReplicas: fmt.Sprint(f.replicas)}
	}
	if f.from != string(gatewayv1.NamespacesFromSame) && f.from != string(gatewayv1.NamespacesFromAll) {
		return nil, cli.Usage(fmt.Errorf("--from %q: want Same or All", f.from))
	}
	var wrong []string
	for _, p := range provision.Check(gw).Problems {
		wrong = append(wrong, p.String())
	}
	if len(wrong) > 0 {
		return nil, cli.Usage(errors.New(strings.Join(wrong, "; ")))
	}
	return gw, nil
}

func newWaypoint(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "waypoint", Short: "Make, list and remove waypoints", Example: "  ambit waypoint apply -n shop --bind\n  ambit waypoint status -n shop",
		Args: cli.UnknownCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	f := addCluster(cmd, s)
	cmd.AddCommand(newWaypointApply(f), newWaypointGenerate(f), newWaypointList(f, "list", "List waypoints", false),
		newWaypointList(f, "status", "Show one waypoint or all of a namespace; the exit code is 3 unless all are programmed", true), newWaypointDelete(f))
	return cmd
}

func newWaypointGenerate(f *clusterFlags) *cobra.Command {
	var w waypointFlags
	cmd := &cobra.Command{
		Use: "generate", Short: "Print the Gateway of a waypoint", Example: "  ambit waypoint generate -n shop --for all > waypoint.yaml", Args: cli.Exactly(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			gw, err := w.gateway()
			if err != nil {
				return err
			}
			text, err := written(gw)
			if err == nil {
				_, err = f.s.Out.Write(text)
			}
			return err
		},
	}
	w.add(cmd)
	return cmd
}

// written is the object as a person would write it.
func written(gw *gatewayv1.Gateway) ([]byte, error) {
	raw, err := json.Marshal(gw)
	if err != nil {
		return nil, err
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	delete(m, "status")
	if meta, ok := m["metadata"].(map[string]any); ok {
		delete(meta, "creationTimestamp")
	}
	return yaml.Marshal(m)
}

// fieldManager is what server-side apply knows this program by.
const fieldManager = "ambit-mesh.io/cli"

func newWaypointApply(f *clusterFlags) *cobra.Command {
	var w waypointFlags
	var wait waitFlags
	cmd := &cobra.Command{
		Use: "apply", Short: "Make a waypoint, or change it, and wait until it is there",
		Long:    "Applies a Gateway of class ambit-waypoint and waits until it is programmed. With --bind the namespace is labelled\nto use it.",
		Example: "  ambit waypoint apply -n shop --bind", Args: cli.Exactly(cobra.NoArgs),
	}
	w.add(cmd)
	wait.add(cmd, "the waypoint is programmed", 2*time.Minute)
	cmd.Flags().BoolVar(&w.bind, "bind", false, "have all services of the namespace use it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		i, err := f.installer(cmd.Context())
		if err != nil {
			return err
		}
		if w.namespace == "" {
			w.namespace = i.Cluster.Namespace
		}
		return applyWaypoint(cmd.Context(), i, &w, wait.bound())
	}
	return cmd
}

func applyWaypoint(ctx context.Context, i *install.Installer, w *waypointFlags, timeout time.Duration) error {
	gw, err := w.gateway()
	if err != nil {
		return err
	}
	text, err := written(gw)
	if err != nil {
		return err
	}
	if text, err = yaml.YAMLToJSON(text); err != nil {
		return err
	}
	_, err = i.Cluster.Dynamic.Resource(kube.Gateways()).Namespace(gw.Namespace).Patch(ctx, gw.Name, types.ApplyPatchType, text,
		metav1.PatchOptions{FieldManager: fieldManager, Force: new(true)})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("gateway %s/%s: %w: is the Gateway API installed? see ambit check --pre", gw.Namespace, gw.Name, err)
	} else if err != nil {
		return fmt.Errorf("gateway %s/%s: %w", gw.Namespace, gw.Name, err)
	}
	if timeout > 0 {
		if err := i.Programmed(ctx, timeout, gw.Namespace, gw.Name); err != nil {
			return err
		}
	}
	if w.bind {
		if err := i.Label(ctx, gw.Namespace, graph.LabelUseWaypoint, gw.Name); err != nil {
			return err
		}
		i.Say("namespace %s: its services use waypoint %s", gw.Namespace, gw.Name)
	}
	return nil
}

func newWaypointList(f *clusterFlags, use, short string, strict bool) *cobra.Command {
	var namespace string
	var all bool
	cmd := &cobra.Command{Use: use, Short: short, Example: "  ambit waypoint " + use + " -A", Args: cli.Exactly(cobra.NoArgs)}
	if strict {
		cmd.Use, cmd.Args, cmd.Example = use+" [NAME]", cli.Exactly(cobra.MaximumNArgs(1)), "  ambit waypoint status waypoint -n shop"
	}
	out := cli.AddFormat(cmd)
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace; that of the kubeconfig's context by default")
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "of all namespaces")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := f.Connect(cmd.Context())
		if err != nil {
			return err
		}
		if namespace == "" && !all {
			namespace = c.Namespace
		}
		list, err := waypointsOf(cmd.Context(), c, namespace)
		if err != nil {
			return err
		}
		var kept []waypointStatus
		var bad []string
		for _, w := range list {
			if len(args) > 0 && w.Name != args[0] {
				continue
			}
			kept = append(kept, w)
			if !w.Programmed {
				bad = append(bad, w.Namespace+"/"+w.Name)
			}
		}
		if len(args) > 0 && len(kept) == 0 {
			return fmt.Errorf("there is no waypoint %s in namespace %s: make one with ambit waypoint apply", args[0], namespace)
		}
		if err := out.Print(f.s.Out, kept, func(w *tabwriter.Writer) { waypointTable(w, kept) }); err != nil {
			return err
		}
		if strict && len(bad) > 0 {
			return cli.Unwell("not programmed: " + strings.Join(bad, ", "))
		}
		return nil
	}
	return cmd
}

func waypointTable(w *tabwriter.Writer, list []waypointStatus) {
	cli.Row(w, "NAMESPACE", "WAYPOINT", "FOR", "ACCEPTED", "PROGRAMMED", "ADDRESSES", "MESSAGE")
	for _, p := range list {
		cli.Row(w, p.Namespace, p.Name, p.For, cli.YesNo(p.Accepted), cli.YesNo(p.Programmed), strings.Join(p.Addresses, ","), p.Message)
	}
}

func newWaypointDelete(f *clusterFlags) *cobra.Command {
	var namespace string
	var force bool
	cmd := &cobra.Command{
		Use: "delete NAME...", Short: "Remove waypoints", Long: "Removes Gateways of class ambit-waypoint. It refuses while the namespace's label still binds to one: connections that\nneed it would be refused.",
		Example: "  ambit waypoint delete waypoint -n shop", Args: cli.Exactly(cobra.MinimumNArgs(1)),
	}
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace; that of the kubeconfig's context by default")
	cmd.Flags().BoolVar(&force, "unbind", false, "remove the namespace's label first")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		i, err := f.installer(cmd.Context())
		if err != nil {
			return err
		}
		if namespace == "" {
			namespace = i.Cluster.Namespace
		}
		for _, name := range args {
			if err := deleteWaypoint(cmd.Context(), i, namespace, name, force); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

func deleteWaypoint(ctx context.Context, i *install.Installer, namespace, name string, unbind bool) error {
	gateways := i.Cluster.Dynamic.Resource(kube.Gateways()).Namespace(namespace)
	u, err := gateways.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("waypoint %s/%s: %w: see ambit waypoint list -A", namespace, name, err)
	}
	if _, ours := waypointOf(u); !ours {
		return fmt.Errorf("gateway %s/%s is no waypoint: its class is not %s", namespace, name, graph.WaypointClass)
	}
	ns, err := i.Cluster.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if ns.Labels[graph.LabelUseWaypoint] == name {
		if !unbind {
			return fmt.Errorf("namespace %s has the label %s=%s, so that connections to its services would be refused: say --unbind, or change the label", namespace, graph.LabelUseWaypoint, name)
		}
		if err := i.Label(ctx, namespace, graph.LabelUseWaypoint, ""); err != nil {
			return err
		}
	}
	return gateways.Delete(ctx, name, metav1.DeleteOptions{})
}
