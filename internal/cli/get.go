package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/internal/local/control"
)

func newGet(s Streams, f *localFlags) *cobra.Command {
	var args control.GetArgs
	cmd := &cobra.Command{
		Use:     "get KIND [NAME]",
		Short:   "Show objects: the manifests', and what the local mesh made of them",
		Example: "  ambit local get pods\n  ambit local get svc web -n shop -o yaml\n  ambit local get endpointslices",
		Args:    Exactly(cobra.RangeArgs(1, 2)),
	}
	out := AddFormat(cmd)
	cmd.Flags().StringVarP(&args.Namespace, "namespace", "n", "", "namespace; all by default")
	cmd.RunE = func(cmd *cobra.Command, argv []string) error {
		args.Kind = argv[0]
		if len(argv) > 1 {
			args.Name = argv[1]
		}
		client, err := f.client()
		if err != nil {
			return err
		}
		var list struct {
			APIVersion string            `json:"apiVersion"`
			Kind       string            `json:"kind"`
			Items      []json.RawMessage `json:"items"`
		}
		if err := client.Call(cmd.Context(), control.OpGet, args, &list); err != nil {
			return err
		}
		return out.Print(s.Out, list, func(w *tabwriter.Writer) { objectTable(w, list.Items) })
	}
	return cmd
}

// objectTable prints objects of one kind.
func objectTable(w *tabwriter.Writer, items []json.RawMessage) {
	for i, raw := range items {
		var o metav1.PartialObjectMetadata
		if json.Unmarshal(raw, &o) != nil {
			continue
		}
		columns := columnsOf(o.Kind)
		if i == 0 {
			Row(w, append([]any{"NAMESPACE", "NAME"}, columns.headings...)...)
		}
		for _, cells := range columns.rows(raw) {
			Row(w, append([]any{o.Namespace, o.Name}, cells...)...)
		}
	}
	if len(items) == 0 {
		fmt.Fprintln(w, "none")
	}
}

// columns are those of a kind, after namespace and name.
type columns struct {
	headings []any
	rows     func(json.RawMessage) [][]any
}

// as decodes an object that came from its own type and has one row.
func as[T any](f func(*T) []any) func(json.RawMessage) [][]any {
	return asMany(func(o *T) [][]any { return [][]any{f(o)} })
}

// asMany is as for an object that may have several rows.
func asMany[T any](f func(*T) [][]any) func(json.RawMessage) [][]any {
	return func(raw json.RawMessage) [][]any {
		var o T
		if json.Unmarshal(raw, &o) != nil {
			return [][]any{nil}
		}
		return f(&o)
	}
}

func columnsOf(kind string) columns {
	if isPolicy(kind) {
		return columns{[]any{"TARGET", "ACCEPTED", "MESSAGE"}, asMany(policyRows)}
	}
	switch kind {
	case "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute":
		return columns{[]any{"PARENT", "ACCEPTED", "RESOLVED-REFS", "BACKENDS", "MESSAGE"}, asMany(routeRows)}
	case "Pod":
		return columns{[]any{"PHASE", "READY", "IPS", "NODE", "AGE"}, as(podCells)}
	case "Service":
		return columns{[]any{"TYPE", "CLUSTER-IPS", "PORTS", "SELECTOR"}, as(serviceCells)}
	case "EndpointSlice":
		return columns{[]any{"ADDRESSES", "PORTS"}, as(sliceCells)}
	case "Node":
		return columns{[]any{"ADDRESS", "POD-BLOCKS", "AGE"}, as(func(n *corev1.Node) []any {
			return []any{n.Status.Addresses[1].Address, strings.Join(n.Spec.PodCIDRs, ","), Age(n.CreationTimestamp.Time)}
		})}
	case "Gateway":
		return columns{[]any{"CLASS", "ACCEPTED", "PROGRAMMED", "ADDRESSES"}, as(gatewayCells)}
	case "Deployment":
		return columns{[]any{"REPLICAS", "COMMAND"}, as(func(d *appsv1.Deployment) []any {
			return []any{*d.Spec.Replicas, strings.Join(d.Spec.Template.Spec.Containers[0].Command, " ")}
		})}
	default:
		return columns{[]any{"LABELS"}, as(func(m *metav1.PartialObjectMetadata) []any {
			return []any{labelList(m.Labels)}
		})}
	}
}

func podCells(p *corev1.Pod) []any {
	ready := 0
	for _, c := range p.Status.ContainerStatuses {
		if c.Ready {
			ready++
		}
	}
	var ips []string
	for _, ip := range p.Status.PodIPs {
		ips = append(ips, ip.IP)
	}
	return []any{
		p.Status.Phase, fmt.Sprintf("%d/%d", ready, len(p.Status.ContainerStatuses)), strings.Join(ips, ","),
		p.Spec.NodeName, Age(p.CreationTimestamp.Time),
	}
}

func serviceCells(s *corev1.Service) []any {
	var ports []string
	for _, p := range s.Spec.Ports {
		ports = append(ports, fmt.Sprintf("%d/%s", p.Port, p.Protocol))
	}
	return []any{s.Spec.Type, strings.Join(s.Spec.ClusterIPs, ","), strings.Join(ports, ","), labelList(s.Spec.Selector)}
}

func gatewayCells(g *gatewayv1.Gateway) []any {
	is := func(kind gatewayv1.GatewayConditionType) string {
		if c := meta.FindStatusCondition(g.Status.Conditions, string(kind)); c != nil {
			return string(c.Status)
		}
		return ""
	}
	var addrs []string
	for _, a := range g.Status.Addresses {
		addrs = append(addrs, a.Value)
	}
	return []any{g.Spec.GatewayClassName, is(gatewayv1.GatewayConditionAccepted), is(gatewayv1.GatewayConditionProgrammed), strings.Join(addrs, ",")}
}

func sliceCells(e *discoveryv1.EndpointSlice) []any {
	var addrs, ports []string
	for _, ep := range e.Endpoints {
		text := strings.Join(ep.Addresses, ",")
		if ep.Conditions.Ready != nil && !*ep.Conditions.Ready {
			text += "(not ready)"
		}
		addrs = append(addrs, text)
	}
	for _, p := range e.Ports {
		ports = append(ports, fmt.Sprint(*p.Port))
	}
	return []any{strings.Join(addrs, " "), strings.Join(ports, ",")}
}

func labelList(m map[string]string) string {
	return metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: m})
}
