package cluster

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	releasev1 "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/strvals"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/internal/cli"
	"github.com/ambit-mesh/ambit/internal/cli/install"
)

// applyFlags are those of install and upgrade.
type applyFlags struct {
	files, sets []string
	request     install.Request
	waitFlags
	skipChecks bool
}

func (a *applyFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVarP(&a.files, "values", "f", nil, "file with values of the chart; repeatable, later ones win")
	flags.StringArrayVar(&a.sets, "set", nil, "one value, such as image.registry=registry.internal/ambit; repeatable, wins over files")
	flags.StringVar(&a.request.Version, "version", "", "version of the images; that of this program by default")
	flags.BoolVar(&a.request.DryRun, "dry-run", false, "print the objects, checked against the kinds that the cluster knows, and change nothing")
	flags.BoolVar(&a.request.TakeOwnership, "take-ownership", false, "adopt objects of the same names that were made otherwise, such as CRDs by kubectl apply")
	flags.BoolVar(&a.skipChecks, "skip-checks", false, "go on even though a check fails")
	a.waitFlags.add(cmd, "all of the mesh is ready", 5*time.Minute)
}

// values reads files and settings.
func (a *applyFlags) values() (map[string]any, error) {
	all := map[string]any{}
	for _, name := range a.files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, cli.Usage(fmt.Errorf("--values: %w", err))
		}
		one := map[string]any{}
		if err := yaml.UnmarshalStrict(text, &one); err != nil {
			return nil, cli.Usage(fmt.Errorf("--values %s: %w", name, err))
		}
		all = loader.MergeMaps(all, one)
	}
	for _, s := range a.sets {
		if err := strvals.ParseInto(s, all); err != nil {
			return nil, cli.Usage(fmt.Errorf("--set %s: %w: want NAME=VALUE", s, err))
		}
	}
	return all, nil
}

func newInstall(s cli.Streams) *cobra.Command {
	var a applyFlags
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install the mesh into a cluster",
		Long: "Installs control plane, ztunnels and node agents with the Helm chart that this program carries, and waits\n" +
			"until they are ready. Nothing is enrolled by that. It may be repeated: what is there is brought to what is\n" +
			"said, and values of before stay. The release can be seen by helm, too.",
		Example: "  ambit install\n  ambit install --set image.registry=registry.internal/ambit --set controlplane.replicas=3\n" +
			"  ambit install --set waypoints.enabled=false      # layer 4 only; ambit upgrade --set waypoints.enabled=true later\n" +
			"  ambit install --dry-run > ambit.yaml",
		Args: cli.Exactly(cobra.NoArgs),
	}
	f := addCluster(cmd, s)
	a.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return apply(cmd, f, &a, false) }
	return cmd
}

func newUpgrade(s cli.Streams) *cobra.Command {
	var a applyFlags
	var rollback bool
	var to int
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Bring an installed mesh to this version, or to other values, or back",
		Long: "Upgrades what ambit install installed, CRDs included, and waits until it is ready. Values of before stay unless\n" +
			"--reset-values is given. Connections go on: each node's new ztunnel is ready before the old one is told to stop.",
		Example: "  ambit upgrade\n  ambit upgrade --set controlplane.replicas=3\n  ambit upgrade --rollback",
		Args:    cli.Exactly(cobra.NoArgs),
	}
	f := addCluster(cmd, s)
	a.add(cmd)
	cmd.Flags().BoolVar(&a.request.Reset, "reset-values", false, "forget values that were given before")
	cmd.Flags().BoolVar(&rollback, "rollback", false, "go back to what was before the last change, or to --to-revision")
	cmd.Flags().IntVar(&to, "to-revision", 0, "revision to go back to; the one before if 0")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !rollback {
			return apply(cmd, f, &a, true)
		}
		i, err := f.installer(cmd.Context())
		if err != nil {
			return err
		}
		if err := i.Rollback(to); err != nil {
			return err
		}
		if a.wait {
			return i.Wait(cmd.Context(), a.timeout)
		}
		return nil
	}
	return cmd
}

// apply checks, applies and waits.
func apply(cmd *cobra.Command, f *clusterFlags, a *applyFlags, there bool) error {
	ctx := cmd.Context()
	var err error
	if a.request.Values, err = a.values(); err != nil {
		return err
	}
	if a.request.Version == "" {
		a.request.Version = released()
	}
	i, err := f.installer(ctx)
	if err != nil {
		return err
	}
	if _, err := i.Current(); there && err != nil || err != nil && !errors.Is(err, install.ErrNotInstalled) {
		return err
	}
	list, err := i.Before(ctx)
	if err != nil {
		return err
	}
	for _, c := range list {
		if c.Level != install.OK {
			i.Say("%s: %s: %s: %s", c.Level, c.Check, c.Message, c.Hint)
		}
	}
	if err := failed(list); err != nil && !a.skipChecks {
		return err
	}
	rel, err := i.Apply(ctx, a.request)
	if err != nil {
		return hint(err)
	}
	if a.request.DryRun {
		_, err := fmt.Fprint(f.s.Out, rel.Manifest)
		return err
	}
	if a.wait {
		if err := i.Wait(ctx, a.timeout); err != nil {
			return err
		}
	}
	return done(f.s, rel)
}

func done(s cli.Streams, rel *releasev1.Release) error {
	_, err := fmt.Fprintf(s.Out, "ambit %s is installed (revision %d). Next: ambit enroll NAMESPACE\n", rel.Chart.Metadata.AppVersion, rel.Version)
	return err
}

// hint adds what to do about errors of Helm that have a way out.
func hint(err error) error {
	if strings.Contains(err.Error(), "invalid ownership metadata") || strings.Contains(err.Error(), "cannot be imported into the current release") {
		return fmt.Errorf("%w\nsomething else made it: repeat with --take-ownership, or for CRDs with --set crds.install=false", err)
	}
	return err
}

// released is the version of this program if it is one of a release.
func released() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || !strings.HasPrefix(info.Main.Version, "v") || strings.ContainsAny(info.Main.Version, "-+") {
		return ""
	}
	return info.Main.Version
}
