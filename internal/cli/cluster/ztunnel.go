package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/internal/cli"
	"github.com/ambit-mesh/ambit/internal/cli/kube"
)

// portAdmin is ztunnel's admin port, which is on loopback.
const portAdmin = 15000

// ztunnelFlags choose a ztunnel.
type ztunnelFlags struct {
	*clusterFlags
	node, pod string
}

func newZtunnel(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ztunnel", Short: "Look into the ztunnel of a node",
		Long: "Looks into the ztunnel of a node, or of the node that a pod runs on, through its admin port, which is on\n" +
			"loopback only: you need the right to forward ports of pods in the namespace of the mesh.",
		Example: "  ambit ztunnel workloads --node n1\n  ambit ztunnel certs --of shop/web-6d5f\n  ambit ztunnel log --node n1 --level debug",
		Args:    cli.UnknownCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	f := &ztunnelFlags{clusterFlags: addCluster(cmd, s)}
	cmd.PersistentFlags().StringVar(&f.node, "node", "", "node; needed where there are several")
	cmd.PersistentFlags().StringVar(&f.pod, "of", "", "the node of this pod, NAMESPACE/NAME")
	cmd.MarkFlagsMutuallyExclusive("node", "of")
	cmd.AddCommand(
		f.show("workloads", "Show the workloads that it knows, and how they are reached", workloadTable),
		f.show("services", "Show the services that it knows", serviceTable),
		f.show("policies", "Show the policies that it enforces", policyTable),
		f.show("certs", "Show the certificates that it serves, not their keys", certTable),
		newZtunnelConnections(f),
		newZtunnelLog(f),
	)
	return cmd
}

// find gives the name of the ztunnel's pod that is meant.
func (f *ztunnelFlags) find(ctx context.Context, c *kube.Cluster) (string, error) {
	node := f.node
	if f.pod != "" {
		namespace, name, ok := strings.Cut(f.pod, "/")
		if !ok {
			namespace, name = c.Namespace, f.pod
		}
		p, err := c.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return "", fmt.Errorf("--of: %w", err)
		}
		node = p.Spec.NodeName
	}
	list, err := c.CoreV1().Pods(c.System).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=ambit-ztunnel"})
	if err != nil {
		return "", err
	}
	return chooseZtunnel(list.Items, node)
}

// chooseZtunnel picks the newest pod that runs on the node: while one replaces
// another, it is the one that takes new connections.
func chooseZtunnel(pods []corev1.Pod, node string) (string, error) {
	var nodes []string
	var best *corev1.Pod
	for i := range pods {
		p := &pods[i]
		if p.Status.Phase != corev1.PodRunning {
			continue
		}
		if !slices.Contains(nodes, p.Spec.NodeName) {
			nodes = append(nodes, p.Spec.NodeName)
		}
		if (node == "" || p.Spec.NodeName == node) && (best == nil || best.CreationTimestamp.Before(&p.CreationTimestamp)) {
			best = p
		}
	}
	slices.Sort(nodes)
	switch {
	case len(nodes) == 0:
		return "", errors.New("no ztunnel runs: see ambit check")
	case best == nil:
		return "", fmt.Errorf("no ztunnel runs on node %s: there are some on %s", node, strings.Join(nodes, ", "))
	case node == "" && len(nodes) > 1:
		return "", cli.Usage(fmt.Errorf("there are several: choose with --node %s, or --of NAMESPACE/POD", strings.Join(nodes, "|")))
	}
	return best.Name, nil
}

// show is a command that prints a part of what ztunnel tells.
func (f *ztunnelFlags) show(use, short string, table func(*tabwriter.Writer, *ztunnelDump) any) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Example: "  ambit ztunnel " + use + " --node n1\n  ambit ztunnel " + use + " -n shop -o json", Args: cli.Exactly(cobra.NoArgs)}
	out := cli.AddFormat(cmd)
	namespace := cmd.Flags().StringP("namespace", "n", "", "only of this namespace")
	file := cmd.Flags().String("file", "", "read a saved /config_dump instead of asking")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		raw, err := f.dump(cmd.Context(), *file)
		if err != nil {
			return err
		}
		d, err := readDump(raw, *namespace)
		if err != nil {
			return err
		}
		return out.Print(f.s.Out, table(nil, d), func(w *tabwriter.Writer) { table(w, d) })
	}
	return cmd
}

func (f *ztunnelFlags) dump(ctx context.Context, file string) ([]byte, error) {
	if file != "" {
		return readFile(file)
	}
	return f.ask(ctx, http.MethodGet, "/config_dump")
}

func (f *ztunnelFlags) ask(ctx context.Context, method, path string) ([]byte, error) {
	c, err := f.Connect(ctx)
	if err != nil {
		return nil, err
	}
	pod, err := f.find(ctx, c)
	if err != nil {
		return nil, err
	}
	return c.Ask(ctx, c.System, pod, portAdmin, method, path)
}

func newZtunnelLog(f *ztunnelFlags) *cobra.Command {
	var level string
	var reset bool
	cmd := &cobra.Command{
		Use: "log", Short: "Show or set the log level, while it runs", Example: "  ambit ztunnel log --node n1\n  ambit ztunnel log --node n1 --level debug\n  ambit ztunnel log --node n1 --reset",
		Args: cli.Exactly(cobra.NoArgs),
	}
	cmd.Flags().StringVar(&level, "level", "", "debug, info, warn or error")
	cmd.Flags().BoolVar(&reset, "reset", false, "back to what it was started with")
	cmd.MarkFlagsMutuallyExclusive("level", "reset")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		method, path := http.MethodGet, "/logging"
		switch {
		case reset:
			method, path = http.MethodPost, "/logging?reset"
		case level != "" && !slices.Contains([]string{"debug", "info", "warn", "error"}, level):
			return cli.Usage(fmt.Errorf("--level %q: want debug, info, warn or error", level))
		case level != "":
			method, path = http.MethodPost, "/logging?level="+level
		}
		text, err := f.ask(cmd.Context(), method, path)
		if err == nil {
			_, err = f.s.Out.Write(text)
		}
		return err
	}
	return cmd
}

// readDump takes what ztunnel's /config_dump gives, and keeps one namespace.
func readDump(raw []byte, namespace string) (*ztunnelDump, error) {
	d := new(ztunnelDump)
	if err := json.Unmarshal(raw, d); err != nil {
		return nil, fmt.Errorf("ztunnel's config dump: %w", err)
	}
	if namespace == "" {
		return d, nil
	}
	other := func(ns string) bool { return ns != namespace }
	d.Workloads = slices.DeleteFunc(d.Workloads, func(w dumpedWorkload) bool { return other(w.Namespace) })
	d.Services = slices.DeleteFunc(d.Services, func(s dumpedService) bool { return other(s.Namespace) })
	d.Policies = slices.DeleteFunc(d.Policies, func(p dumpedPolicy) bool { return other(p.Namespace) })
	d.Certificates = slices.DeleteFunc(d.Certificates, func(c dumpedCert) bool { return !strings.Contains(c.Identity, "/ns/"+namespace+"/") })
	for key, p := range d.Pods {
		if other(p.Info.Namespace) {
			delete(d.Pods, key)
		}
	}
	return d, nil
}
