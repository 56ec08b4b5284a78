package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/internal/local/control"
)

func newStatus(s Streams, f *localFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show nodes, the mesh's processes, pods and problems",
		Example: "  ambit local status\n  ambit local status -o json",
		Args:    exactly(cobra.NoArgs),
	}
	out := addFormat(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := f.client()
		if err != nil {
			return err
		}
		var st control.Status
		if err := client.Call(cmd.Context(), control.OpStatus, nil, &st); err != nil {
			return err
		}
		return out.print(s.Out, st, func(w *tabwriter.Writer) { statusTable(w, st) })
	}
	return cmd
}

func statusTable(w *tabwriter.Writer, st control.Status) {
	state := "ready"
	if !st.Ready {
		state = "not ready"
	}
	fmt.Fprintf(w, "local mesh %s: %s, up %s, manifests %s\n\n", st.Name, state, age(st.Started), st.Manifests)
	row(w, "NODE", "ADDRESSES", "POD BLOCKS", "PODS", "CERTIFICATES")
	for _, n := range st.Nodes {
		row(w, n.Name, strings.Join(n.Addresses, ","), strings.Join(n.PodBlocks, ","), n.Pods, certificates(n.Certificates))
	}
	if st.Mesh {
		fmt.Fprintln(w)
		row(w, "COMPONENT", "PID", "UP", "RESTARTS", "READY", "MESSAGE")
		for _, c := range st.Components {
			message := c.Message
			if c.Draining > 0 {
				message = strings.TrimSpace(fmt.Sprintf("%s (%d before it with connections)", message, c.Draining))
			}
			row(w, c.Name, c.Pid, age(c.Started), c.Restarts, yesNo(c.Ready), message)
		}
	}
	fmt.Fprintln(w)
	row(w, "NAMESPACE", "POD", "READY", "STATE", "RESTARTS", "IP", "NODE", "CAPTURED", "AGE")
	for _, p := range st.Pods {
		row(w, p.Namespace, p.Name, p.Ready, p.State, p.Restarts, strings.Join(p.IPs, ","), p.Node, p.Captured, age(p.Created))
	}
	if len(st.Waypoints) > 0 {
		fmt.Fprintln(w)
		row(w, "NAMESPACE", "WAYPOINT", "PROGRAMMED", "ADDRESSES", "MESSAGE")
		for _, p := range st.Waypoints {
			row(w, p.Namespace, p.Name, yesNo(p.Programmed), strings.Join(p.Addresses, ","), p.Message)
		}
	}
	if len(st.Routes) > 0 {
		fmt.Fprintln(w)
		row(w, "NAMESPACE", "ROUTE NOT ACCEPTED", "PARENT", "REASON")
		for _, r := range st.Routes {
			row(w, r.Namespace, r.Kind+" "+r.Name, r.Parent, r.Reason)
		}
	}
	var why []string
	for _, p := range st.Pods {
		if p.Message != "" {
			why = append(why, fmt.Sprintf("%s/%s: %s", p.Namespace, p.Name, p.Message))
		}
	}
	for _, n := range st.Nodes {
		if n.Certificates == nil {
			continue
		}
		for _, id := range slices.Sorted(maps.Keys(n.Certificates.Errors)) {
			why = append(why, fmt.Sprintf("certificate of %s on %s: %s", id, n.Name, n.Certificates.Errors[id]))
		}
	}
	list(w, "WAITING", why)
	list(w, "PROBLEMS", st.Problems)
	list(w, "NOTES", st.Notes)
}

// certificates tells how a node's certificates are.
func certificates(c *control.Certificates) string {
	if c == nil {
		return ""
	}
	var parts []string
	for _, state := range slices.Sorted(maps.Keys(c.States)) {
		parts = append(parts, fmt.Sprintf("%d %s", c.States[state], state))
	}
	if !c.Soonest.IsZero() {
		parts = append(parts, "the first expires at "+c.Soonest.UTC().Format("2006-01-02 15:04 MST"))
	}
	return strings.Join(parts, ", ")
}

func list(w *tabwriter.Writer, heading string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s\n", heading)
	for _, l := range lines {
		fmt.Fprintln(w, l)
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
