package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/internal/cli/install"
	"github.com/ambit-mesh/ambit/internal/cli/kube"
)

// Exit codes.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitUnwell      = 3 // what was looked at is not as it should be
	exitTimeout     = 4 // what was waited for did not come
	exitUnreachable = 5 // the cluster does not answer, or does not know the user
)

// usageError is a call that makes no sense.
type usageError struct{ error }

// exitError is the exit code of a program that was run.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// unwellError is something looked at that is not as it should be. What is wrong has
// been printed.
type unwellError struct{ what string }

func (e unwellError) Error() string { return e.what }

// Streams are where a command reads and writes.
type Streams struct {
	In       *os.File
	Out, Err *os.File
	// Program is the name that the command was called by; kubectl-ambit makes it a
	// plug-in of kubectl.
	Program string
}

// Main runs the command line and gives the exit code.
func Main(args []string, s Streams) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// A second Ctrl-C does what it does to any program.
	context.AfterFunc(ctx, stop)
	root := newRoot(s)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var exit exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	fmt.Fprintf(s.Err, "error: %v\n", err)
	return code(err)
}

// code gives the exit code of an error.
func code(err error) int {
	var usage usageError
	var unwell unwellError
	var timeout *install.TimeoutError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &unwell):
		return exitUnwell
	case errors.As(err, &timeout):
		return exitTimeout
	case kube.Unreachable(err):
		return exitUnreachable
	default:
		return exitFailed
	}
}

func newRoot(s Streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "ambit",
		Short: "A service mesh without sidecars",
		Long: "ambit installs, runs and looks into a service mesh that gives every workload an identity\n" +
			"and mutual TLS without a sidecar: in a Kubernetes cluster, or on this machine (ambit local).",
		Example:       "  ambit install\n  ambit enroll shop\n  ambit local up -f examples/shop/manifests",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          unknownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	if filepath.Base(s.Program) == "kubectl-ambit" {
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl ambit"}
	}
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w: see %s --help", err, cmd.CommandPath())}
	})
	// Flags that exclude each other are checked by cobra, too, but not as wrong usage.
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := cmd.ValidateFlagGroups(); err != nil {
			return usageError{fmt.Errorf("%w: see %s --help", err, cmd.CommandPath())}
		}
		return nil
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(newVersion(s), newCompletion(s.Out), newLocal(s))
	root.AddCommand(newInstall(s), newUpgrade(s), newUninstall(s), newCheck(s), newEnroll(s), newUnenroll(s),
		newClusterStatus(s), newWaypoint(s), newZtunnel(s), newClusterExplain(s), newClusterObserve(s), newClusterEdges(s))
	return root
}

// unknownCommand refuses what no subcommand took.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("there is no command %q: see %s --help", args[0], cmd.CommandPath())}
	}
	return nil
}

// exactly makes wrong numbers of arguments usage errors.
func exactly(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w: usage: %s", err, cmd.UseLine())}
		}
		return nil
	}
}

// version says what this binary was built from.
func version() string {
	v, revision := "unknown", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		v = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = " " + s.Value
			}
		}
	}
	return fmt.Sprintf("ambit %s%s %s %s/%s", v, revision, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func newCompletion(out io.Writer) *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use: "completion SHELL", Short: "Print a completion script for bash, zsh, fish or powershell",
		Example: "  source <(ambit completion bash)", ValidArgs: shells,
		Args: exactly(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			default:
				return root.GenPowerShellCompletionWithDesc(out)
			}
		},
	}
}
