package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/internal/cli"
	"github.com/ambit-mesh/ambit/internal/cli/install"
	"github.com/ambit-mesh/ambit/internal/cli/kube"
)

// Part is what the command line has for clusters.
func Part() cli.Part {
	return cli.Part{
		Commands: func(s cli.Streams) []*cobra.Command {
			return []*cobra.Command{
				newVersion(s), newInstall(s), newUpgrade(s), newUninstall(s), newCheck(s), newEnroll(s), newUnenroll(s),
				newStatus(s), newWaypoint(s), newZtunnel(s), newExplain(s), newObserve(s), newEdges(s),
			}
		},
		ExitCode: func(err error) int {
			var timeout *install.TimeoutError
			switch {
			case errors.As(err, &timeout):
				return cli.ExitTimeout
			case kube.Unreachable(err):
				return cli.ExitUnreachable
			}
			return 0
		},
	}
}

// clusterFlags are those of all commands for clusters.
type clusterFlags struct {
	kube.Flags
	s cli.Streams
}

// addCluster adds the flags to a command.
func addCluster(cmd *cobra.Command, s cli.Streams) *clusterFlags {
	f := &clusterFlags{s: s}
	f.Add(cmd.PersistentFlags())
	return f
}

// installer works on the cluster that the flags mean, and tells of its progress on
// standard error.
func (f *clusterFlags) installer(ctx context.Context) (*install.Installer, error) {
	c, err := f.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &install.Installer{Cluster: c, Say: func(format string, args ...any) { fmt.Fprintf(f.s.Err, format+"\n", args...) }}, nil
}

// waitFlags say whether to wait, and how long.
type waitFlags struct {
	wait    bool
	timeout time.Duration
}

func (w *waitFlags) add(cmd *cobra.Command, what string, timeout time.Duration) {
	cmd.Flags().BoolVar(&w.wait, "wait", true, "wait until "+what)
	cmd.Flags().DurationVar(&w.timeout, "timeout", timeout, "how long to wait")
}

// bound is 0 where nothing is waited for.
func (w *waitFlags) bound() time.Duration {
	if !w.wait {
		return 0
	}
	return w.timeout
}

func newVersion(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version, and with --cluster those of what is installed",
		Example: "  ambit version\n  ambit version --cluster -o json", Args: cli.Exactly(cobra.NoArgs),
	}
	f, out := addCluster(cmd, s), cli.AddFormat(cmd)
	inCluster := cmd.Flags().Bool("cluster", false, "ask the cluster, too")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		v := struct {
			Client     string              `json:"client"`
			Kubernetes string              `json:"kubernetes,omitempty"`
			Components []install.Component `json:"components,omitempty"`
		}{Client: cli.Version()}
		if *inCluster {
			i, err := f.installer(cmd.Context())
			if err != nil {
				return err
			}
			v.Kubernetes = i.Cluster.Version
			if v.Components, err = i.Components(cmd.Context()); err != nil {
				return err
			}
		}
		return out.Print(s.Out, v, func(w *tabwriter.Writer) {
			fmt.Fprintln(w, v.Client)
			if *inCluster {
				fmt.Fprintf(w, "Kubernetes %s\n", v.Kubernetes)
			}
			for _, c := range v.Components {
				fmt.Fprintf(w, "%s %s, %d of %d ready\n", c.Name, c.Version, c.Ready, c.Desired)
			}
		})
	}
	return cmd
}

func newCheck(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check whether the mesh is well, or with --pre whether it can be installed",
		Long: "Checks what is installed: release, control plane, ztunnels, node agents, and that all enrolled pods are\n" +
			"captured. With --pre it checks whether a cluster can take the mesh. Each failure comes with what to do.\n" +
			"The exit code is 3 if something fails.",
		Example: "  ambit check --pre\n  ambit check -o json", Args: cli.Exactly(cobra.NoArgs),
	}
	f, out := addCluster(cmd, s), cli.AddFormat(cmd)
	pre := cmd.Flags().Bool("pre", false, "before an installation")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		i, err := f.installer(cmd.Context())
		if err != nil {
			return err
		}
		look := i.After
		if *pre {
			look = i.Before
		}
		list, err := look(cmd.Context())
		if err != nil {
			return err
		}
		if err := out.Print(s.Out, list, func(w *tabwriter.Writer) { findingTable(w, list) }); err != nil {
			return err
		}
		return failed(list)
	}
	return cmd
}

// failed is an error if a finding is a failure.
func failed(list []install.Finding) error {
	var names []string
	for _, f := range list {
		if f.Level == install.Failure {
			names = append(names, f.Check)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return cli.Unwell("not well: " + strings.Join(names, ", "))
}

func findingTable(w *tabwriter.Writer, list []install.Finding) {
	cli.Row(w, "CHECK", "RESULT", "MESSAGE", "WHAT TO DO")
	for _, f := range list {
		cli.Row(w, f.Check, f.Level, f.Message, f.Hint)
	}
}
