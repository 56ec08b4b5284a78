package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/internal/cli"
	"github.com/ambit-mesh/ambit/internal/cli/kube"
	"github.com/ambit-mesh/ambit/internal/explain"
	"github.com/ambit-mesh/ambit/internal/local/control"
	"github.com/ambit-mesh/ambit/internal/manifest"
)

func newExplain(s cli.Streams) *cobra.Command {
	var args control.ExplainArgs
	var headers, dirs []string
	out := cli.ExplainFormat("text")
	cmd := &cobra.Command{
		Use:   "explain CLIENT SERVICE[.NAMESPACE][:PORT[/udp]]",
		Short: "Say what would become of a request from A to B",
		Long: "Says what would become of a request: whether the client is captured and who it is, which waypoint is taken and\n" +
			"why, which route and rule match and why not the others, the backends with their weights, and what the policies\n" +
			"say on the way. CLIENT is a pod, deploy/NAME or sts/NAME, all with .NAMESPACE or [NAMESPACE/], a SPIFFE ID, or -\n" +
			"for nobody in particular; \"CLIENT -> SERVICE\" in quotes works, too.\n\n" +
			"It reads the objects of the cluster with your kubeconfig, or with -f those of directories, where it imagines that\n" +
			"all runs and all that labels enrol is captured. Nothing is sent; what depends on the moment, such as rate\n" +
			"limits that are used up, is left out.",
		Example: "  ambit explain deploy/web.shop cart.shop:8080\n  ambit explain 'deploy/web.shop -> cart.shop:8080' -X POST --path /cart/1\n" +
			"  ambit explain deploy/web.shop game.shop:7000/udp\n" +
			"  ambit explain deploy/visitor.shop cart.shop:8080 -f examples/shop/manifests -f examples/shop/policies",
		Args: cli.Exactly(cobra.RangeArgs(1, 2)),
	}
	f := addCluster(cmd, s)
	flags := cmd.Flags()
	flags.StringArrayVarP(&dirs, "filename", "f", nil, "directory of manifests to read instead of the cluster; repeatable, later ones overlay earlier ones")
	flags.StringVarP(&args.From.Namespace, "namespace", "n", "", "namespace where a name has none")
	flags.StringVarP(&args.Query.Method, "method", "X", "GET", "method")
	flags.StringVar(&args.Query.Path, "path", "/", "path, with its query")
	flags.StringArrayVarP(&headers, "header", "H", nil, "header, NAME:VALUE; may be repeated")
	flags.VarP(&out, "output", "o", "how to print")
	cmd.RunE = func(cmd *cobra.Command, argv []string) error {
		if len(argv) == 1 {
			argv = strings.Split(argv[0], "->")
		}
		if len(argv) != 2 {
			return cli.Usage(errors.New("want CLIENT and SERVICE: see ambit explain --help"))
		}
		client, service := strings.TrimSpace(argv[0]), strings.TrimSpace(argv[1])
		if err := cli.Address(service, &args); err != nil {
			return err
		}
		var err error
		if args.Query.Headers, err = cli.ParseHeaders(headers); err != nil {
			return err
		}
		objects, options, err := f.objects(cmd.Context(), dirs)
		if err != nil {
			return err
		}
		if err := from(client, args.From.Namespace, objects, &args.Query); err != nil {
			return err
		}
		report, err := explained(objects, options, args.Query)
		if err != nil {
			return err
		}
		return out.Report(s.Out, report)
	}
	return cmd
}

func explained(objects []graph.Entry, o compile.Options, q explain.Query) (explain.Report, error) {
	state, err := explain.Compile(objects, o)
	if err != nil {
		return explain.Report{}, err
	}
	namespace, name, err := state.Subject(q)
	if err != nil {
		return explain.Report{}, err
	}
	q.BoundBy = explain.BoundBy(objects, namespace, name)
	return state.Explain(q)
}

// from reads who sends the request.
func from(client, namespace string, objects []graph.Entry, q *explain.Query) error {
	if client == "-" {
		return nil
	}
	if strings.HasPrefix(client, "spiffe://") {
		q.Identity = client
		return nil
	}
	kind, name, typed := strings.Cut(client, "/")
	if !typed {
		kind, name = "pod", client
	} else if kind != "deploy" && kind != "deployment" && kind != "sts" && kind != "statefulset" && kind != "pod" {
		namespace, kind = kind, "pod"
	}
	if n, ns, ok := strings.Cut(name, "."); ok {
		name, namespace = n, ns
	}
	var found []*corev1.Pod
	for _, e := range objects {
		p, ok := e.Object.(*corev1.Pod)
		if ok && (namespace == "" || p.Namespace == namespace) && (p.Name == name || kind != "pod" && madeBy(p, name)) {
			found = append(found, p)
		}
	}
	switch {
	case len(found) == 0:
		return fmt.Errorf("there is no pod of %s: name a pod, deploy/NAME or sts/NAME, with .NAMESPACE or -n, or a SPIFFE ID", client)
	case found[0].Namespace != found[len(found)-1].Namespace:
		return fmt.Errorf("%s is in several namespaces, such as %s and %s: say which with .NAMESPACE or -n", client, found[0].Namespace, found[len(found)-1].Namespace)
	}
	q.PodNamespace, q.Pod = found[0].Namespace, found[0].Name
	return nil
}

// madeBy says whether a pod is of a Deployment, by the name of its ReplicaSet, or of
// a StatefulSet.
func madeBy(p *corev1.Pod, name string) bool {
	for _, o := range p.OwnerReferences {
		switch base := o.Name[:max(0, strings.LastIndex(o.Name, "-"))]; {
		case o.Kind == "ReplicaSet" && base == name, o.Kind == "StatefulSet" && o.Name == name:
			return true
		}
	}
	return false
}

// objects reads the cluster, or directories.
func (f *clusterFlags) objects(ctx context.Context, dirs []string) ([]graph.Entry, compile.Options, error) {
	if len(dirs) > 0 {
		batch, err := manifest.Load(dirs...)
		if err != nil {
			return nil, compile.Options{}, err
		}
		for _, p := range batch.Problems {
			fmt.Fprintf(f.s.Err, "left out: %v\n", p)
		}
		return explain.Imagine(batch.Upserts), compile.Options{}, nil
	}
	c, err := f.Connect(ctx)
	if err != nil {
		return nil, compile.Options{}, err
	}
	list, err := c.Mesh(ctx, manifest.NewScheme())
	if err != nil {
		return nil, compile.Options{}, err
	}
	var out []graph.Entry
	for _, o := range list {
		if g, ok := o.(graph.Object); ok {
			out = append(out, graph.Entry{Object: g})
		}
	}
	options, err := meshOptions(ctx, c)
	return out, options, err
}

// meshOptions are what the control plane in the cluster was told.
func meshOptions(ctx context.Context, c *kube.Cluster) (compile.Options, error) {
	args, err := c.Args(ctx, "ambit-controlplane")
	if err != nil {
		return compile.Options{}, err
	}
	return compile.Options{
		ClusterID: args["cluster-id"], TrustDomain: args["trust-domain"], ClusterDomain: args["cluster-domain"], RootNamespace: args["root-namespace"],
	}, nil
}
