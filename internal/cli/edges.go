package cli

import (
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/internal/flow/report"
)

func newEdges(s Streams, f *localFlags) *cobra.Command {
	cmd := new(cobra.Command)
	BuildEdges(cmd, s, "ambit local edges", "", f.mesh)
	return cmd
}

// BuildEdges makes cmd what shows who talks to whom in a mesh, likewise.
func BuildEdges(cmd *cobra.Command, s Streams, name, about string, connect Connect) {
	var filter filterFlags
	var when span
	cmd.Use = "edges"
	cmd.Short = "Show who talks to whom, and whether it is secured"
	cmd.Long = "Gathers the connections and requests that proxies remember into edges: from whom to whom, whether\n" +
		"mutual TLS secured all of them, how many there were, how many failed or were denied, and their bytes.\n" +
		"Proxies keep their newest 4096 records; metrics count all." + about
	cmd.Example = strings.ReplaceAll("  NAME\n  NAME -n shop --since 10m\n  NAME --unencrypted -o json", "NAME", name)
	cmd.Args = Exactly(cobra.NoArgs)
	out := AddFormat(cmd)
	filter.add(cmd)
	cmd.Flags().StringVar(&when.since, "since", "", "only what ended since then: a duration such as 5m, or a time")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o := &observer{errs: s.Err, joined: true}
		var err error
		if o.request, _, err = request(&filter, &when, true); err != nil {
			return err
		}
		if o.mesh, err = connect(cmd.Context()); err != nil {
			return err
		}
		list, err := o.edges(cmd.Context())
		if err != nil {
			return err
		}
		return out.Print(s.Out, list, func(w *tabwriter.Writer) { edgeTable(w, list) })
	}
}

func edgeTable(w *tabwriter.Writer, list []report.Edge) {
	Row(w, "SOURCE", "DESTINATION", "SECURED", "CONNECTIONS", "REQUESTS", "ERRORS", "DENIED", "SENT", "RECEIVED", "CLIENT-ID", "SERVER-ID", "LAST SEEN")
	for _, e := range list {
		Row(w, e.Source, e.Destination, e.Secured(), e.Connections, e.Requests, e.Errors, e.Denied, report.Bytes(e.Sent), report.Bytes(e.Received),
			e.Source.Identity, e.Destination.Identity, Age(e.LastSeen))
	}
}
