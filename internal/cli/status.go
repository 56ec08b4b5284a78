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
		Args:    Exactly(cobra.NoArgs),
	}
	out := AddFormat(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := f.client()
		if err != nil {
			return err
		}
		var st control.Status
		if err := client.Call(cmd.Context(), control.OpStatus, nil, &st); err != nil {
			return err
		}
		return out.Print(s.Out, st, func(w *tabwriter.Writer) { statusTable(w, st) })
	}
	return cmd
}

func statusTable(w *tabwriter.Writer, st control.Status) {
	state := "ready"
	if !st.Ready {
		state = "not ready"
	}
	fmt.Fprintf(w, "local mesh %s: %s, up %s, manifests %s\n\n", st.Name, state, Age(st.Started), st.Manifests)
	Row(w, "NODE", "ADDRESSES", "POD BLOCKS", "PODS", "CERTIFICATES")
	for _, n := range st.Nodes {
		Row(w, n.Name, strings.Join(n.Addresses, ","), strings.Join(n.PodBlocks, ","), n.Pods, certificates(n.Certificates))
	}
	if st.Mesh {
		fmt.Fprintln(w)
		Row(w, "COMPONENT", "PID", "UP", "RESTARTS", "READY", "MESSAGE")
		for _, c := range st.Components {
			message := c.Message
			if c.Draining > 0 {
				message = strings.TrimSpace(fmt.Sprintf("%s (%d before it with connections)", message, c.Draining))
			}
			Row(w, c.Name, c.Pid, Age(c.Started), c.Restarts, YesNo(c.Ready), message)
		}
	}
	fmt.Fprintln(w)
	Row(w, "NAMESPACE", "POD", "READY", "STATE", "RESTARTS", "IP", "NODE", "CAPTURED", "AGE")
	for _, p := range st.Pods {
		Row(w, p.Namespace, p.Name, p.Ready, p.State, p.Restarts, strings.Join(p.IPs, ","), p.Node, p.Captured, Age(p.Created))
	}
	if len(st.Waypoints) > 0 {
		fmt.Fprintln(w)
		Row(w, "NAMESPACE", "WAYPOINT", "PROGRAMMED", "ADDRESSES", "MESSAGE")
		for _, p := range st.Waypoints {
			Row(w, p.Namespace, p.Name, YesNo(p.Programmed), strings.Join(p.Addresses, ","), p.Message)
		}
	}
	if len(st.Routes) > 0 {
		fmt.Fprintln(w)
		Row(w, "NAMESPACE", "ROUTE NOT ACCEPTED", "PARENT", "REASON")
		for _, r := range st.Routes {
			Row(w, r.Namespace, r.Kind+" "+r.Name, r.Parent, r.Reason)
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
	List(w, "WAITING", why)
	List(w, "PROBLEMS", st.Problems)
	List(w, "NOTES", st.Notes)
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

// List prints lines under a heading, if there are any.
func List(w *tabwriter.Writer, heading string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s\n", heading)
	for _, l := range lines {
		fmt.Fprintln(w, l)
	}
}

// YesNo is for tables.
func YesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
