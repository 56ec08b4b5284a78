package cluster

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/internal/cli"
	"github.com/ambit-mesh/ambit/internal/cli/install"
)

func newUninstall(s cli.Streams) *cobra.Command {
	var w waitFlags
	var yes, keepCRDs, deleteCRDs bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Take the mesh out of a cluster",
		Long: "Takes all pods out of the mesh, one namespace after the other and without a restart; uninstalls the release;\n" +
			"has each node cleaned, so that its rules, CNI configuration and files are as they were before; and removes what\n" +
			"the control plane made. Policies and other objects of users are deleted only with the definitions of their\n" +
			"kinds, which is asked for where there are any. It may be repeated.",
		Example: "  ambit uninstall\n  ambit uninstall --yes --keep-crds", Args: cli.Exactly(cobra.NoArgs),
	}
	f := addCluster(cmd, s)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask whether to uninstall")
	cmd.Flags().BoolVar(&keepCRDs, "keep-crds", false, "keep the definitions of policies, and policies")
	cmd.Flags().BoolVar(&deleteCRDs, "delete-crds", false, "delete them without asking")
	cmd.Flags().DurationVar(&w.timeout, "timeout", 5*time.Minute, "how long to wait for each step")
	cmd.MarkFlagsMutuallyExclusive("keep-crds", "delete-crds")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		i, err := f.installer(ctx)
		if err != nil {
			return err
		}
		members, err := i.Members(ctx)
		if err != nil {
			return err
		}
		if !yes {
			if err := ask(s, fmt.Sprintf("Uninstall the mesh from %s? %d pods leave it.", i.Cluster.Config.Host, len(members))); err != nil {
				return err
			}
		}
		policies, err := i.Policies(ctx)
		if err != nil {
			return err
		}
		if len(policies) > 0 && !keepCRDs && !deleteCRDs {
			if ask(s, "Delete also "+counted(policies)+", and the definitions of their kinds?") != nil {
				keepCRDs = true
			}
		}
		return uninstall(cmd, i, w.timeout, keepCRDs)
	}
	return cmd
}

func uninstall(cmd *cobra.Command, i *install.Installer, timeout time.Duration, keepCRDs bool) error {
	ctx := cmd.Context()
	if err := i.Release(ctx, timeout); err != nil {
		return err
	}
	if err := i.Remove(ctx, timeout); err != nil {
		return err
	}
	if !keepCRDs {
		if err := i.RemoveDefinitions(ctx); err != nil {
			return err
		}
	}
	return i.RemoveNamespace(ctx)
}

func counted(m map[string]int) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("%d %s", m[k], k))
	}
	return strings.Join(out, ", ")
}

// ask is an error unless the answer is yes.
func ask(s cli.Streams, question string) error {
	fmt.Fprint(s.Err, question+" [y/N] ")
	line, err := bufio.NewReader(s.In).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); answer == "y" || answer == "yes" {
		return nil
	}
	if err != nil {
		fmt.Fprintln(s.Err)
		return cli.Usage(errors.New("nobody answers: say --yes, and --keep-crds or --delete-crds"))
	}
	return errors.New("nothing was done")
}
