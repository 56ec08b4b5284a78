package cli

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/internal/explain"
	"github.com/ambit-mesh/ambit/internal/local/control"
)

// ExplainFormat is the value of explain's -o.
type ExplainFormat string

func (f *ExplainFormat) String() string { return string(*f) }

// Set takes one of the known formats.
func (f *ExplainFormat) Set(s string) error {
	if s != "text" && s != "json" && s != "yaml" {
		return errors.New("want text, json or yaml")
	}
	*f = ExplainFormat(s)
	return nil
}

// Type is shown in the help.
func (f *ExplainFormat) Type() string { return "text|json|yaml" }

// Report prints what is explained.
func (f *ExplainFormat) Report(w io.Writer, r explain.Report) error {
	if *f == "text" {
		_, err := fmt.Fprint(w, r)
		return err
	}
	structured := Format(*f)
	return structured.Print(w, r, nil)
}

func newExplain(s Streams, f *localFlags) *cobra.Command {
	var args control.ExplainArgs
	var headers []string
	out := ExplainFormat("text")
	cmd := &cobra.Command{
		Use:   "explain SERVICE[.NAMESPACE][:PORT[/udp]]",
		Short: "Say what would become of a request",
		Long: "Says what would become of a request to a Service: whether the client is captured and who it is, which\n" +
			"waypoint is taken, which route and rule match and why not the others, the backends with their weights,\n" +
			"and what the policies say on the way. Nothing is sent; what depends on the moment, such as tokens and\n" +
			"rate limits that are used up, is left out.",
		Example: "  ambit local explain cart:8080 --from deploy/web\n" +
			"  ambit local explain cart.shop:8080 --from deploy/web -X POST --path /cart/1 -H x-group:testers\n" +
			"  ambit local explain game.shop:7000/udp --from deploy/web\n" +
			"  ambit local explain cart.shop --from-identity spiffe://cluster.local/ns/shop/sa/web -o json",
		Args: Exactly(cobra.ExactArgs(1)),
	}
	flags := cmd.Flags()
	flags.StringVarP(&args.From.Namespace, "namespace", "n", "", "namespace of the Service and of --from; needed where a name is in several")
	flags.StringVar(&args.From.Name, "from", "", "who sends it: a pod, deploy/NAME, sts/NAME or svc/NAME; without it policies are not asked")
	flags.StringVar(&args.Query.Identity, "from-identity", "", "who sends it, as a SPIFFE ID")
	flags.StringVarP(&args.Query.Method, "method", "X", "GET", "method")
	flags.StringVar(&args.Query.Path, "path", "/", "path, with its query")
	flags.StringArrayVarP(&headers, "header", "H", nil, "header, NAME:VALUE; may be repeated")
	flags.VarP(&out, "output", "o", "how to print")
	cmd.MarkFlagsMutuallyExclusive("from", "from-identity")
	cmd.RunE = func(cmd *cobra.Command, argv []string) error {
		if err := Address(argv[0], &args); err != nil {
			return err
		}
		var err error
		if args.Query.Headers, err = ParseHeaders(headers); err != nil {
			return err
		}
		client, err := f.client()
		if err != nil {
			return err
		}
		var report explain.Report
		if err := client.Call(cmd.Context(), control.OpExplain, args, &report); err != nil {
			return err
		}
		return out.Report(s.Out, report)
	}
	return cmd
}

// Address reads SERVICE[.NAMESPACE][:PORT[/udp]]; a host name of a Service is one.
func Address(text string, args *control.ExplainArgs) error {
	q := &args.Query
	host, port, some := strings.Cut(text, ":")
	if some {
		number, protocol, said := strings.Cut(port, "/")
		if q.Protocol = strings.ToUpper(protocol); said && q.Protocol != "TCP" && q.Protocol != "UDP" {
			return Usage(fmt.Errorf("%q: %q is not a protocol of a port: want tcp or udp", text, protocol))
		}
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil || n == 0 {
			return Usage(fmt.Errorf("%q: %q is not a port: want 1 to 65535", text, number))
		}
		q.Port = uint16(n)
	}
	labels := strings.Split(host, ".")
	q.Service, q.Namespace = labels[0], args.From.Namespace
	if len(labels) > 1 {
		q.Namespace = labels[1]
	}
	if q.Service == "" || len(labels) > 2 && labels[2] != "svc" {
		return Usage(fmt.Errorf("%q: want SERVICE[.NAMESPACE][:PORT[/udp]]", text))
	}
	return nil
}

// ParseHeaders reads headers of the form NAME:VALUE.
func ParseHeaders(list []string) ([]explain.Header, error) {
	var out []explain.Header
	for _, text := range list {
		name, value, ok := strings.Cut(text, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return nil, Usage(fmt.Errorf("--header %q: want NAME:VALUE", text))
		}
		out = append(out, explain.Header{Name: name, Value: strings.TrimSpace(value)})
	}
	return out, nil
}
