package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	ExitFailed      = 1
	ExitUsage       = 2
	ExitUnwell      = 3 // what was looked at is not as it should be
	ExitTimeout     = 4 // what was waited for did not come
	ExitUnreachable = 5 // the cluster does not answer, or does not know the user
)

// usageError is a call that makes no sense.
type usageError struct{ error }

// Usage makes an error one of a call that makes no sense.
func Usage(err error) error { return usageError{err} }

// exitError is the exit code of a program that was run.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// unwellError is something looked at that is not as it should be. What is wrong has
// been printed.
type unwellError struct{ what string }

func (e unwellError) Error() string { return e.what }

// Unwell gives the error of something looked at that is not as it should be, which
// has been printed.
func Unwell(what string) error { return unwellError{what} }

// Streams are where a command reads and writes.
type Streams struct {
	In       *os.File
	Out, Err *os.File
	// Program is the name that the command was called by; kubectl-ambit makes it a
	// plug-in of kubectl.
	Program string
}

// Part is what a command line has beside local meshes.
type Part struct {
	Commands func(Streams) []*cobra.Command
	// ExitCode gives that of an error, 0 if it knows none.
	ExitCode func(error) int
}

// Main runs the command line of ambit and gives the exit code.
func Main(args []string, s Streams, part Part) int {
	return run(Root(s, part), args, s, part.ExitCode, func(text string) string { return text })
}

// LocalMain runs the command line of ambit-local, which is ambit local alone, and
// gives the exit code.
func LocalMain(args []string, s Streams) int {
	return run(localRoot(s), args, s, func(error) int { return 0 }, alone)
}

// alone makes a text that speaks of ambit local one of ambit-local.
func alone(text string) string { return strings.ReplaceAll(text, "ambit local", "ambit-local") }

func run(root *cobra.Command, args []string, s Streams, known func(error) int, named func(string) string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// A second Ctrl-C does what it does to any program.
	context.AfterFunc(ctx, stop)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var exit exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	fmt.Fprintf(s.Err, "error: %s\n", named(err.Error()))
	var usage usageError
	var unwell unwellError
	switch {
	case errors.As(err, &usage):
		return ExitUsage
	case errors.As(err, &unwell):
		return ExitUnwell
	}
	return cmp.Or(known(err), ExitFailed)
}

// Root gives the command ambit.
func Root(s Streams, part Part) *cobra.Command {
	root := &cobra.Command{
		Use:   "ambit",
		Short: "A service mesh without sidecars",
		Long: "ambit installs, runs and looks into a service mesh that gives every workload an identity\n" +
			"and mutual TLS without a sidecar: in a Kubernetes cluster, or on this machine (ambit local).",
		Example: "  ambit install\n  ambit enroll shop\n  ambit local up -f examples/shop/manifests",
	}
	if filepath.Base(s.Program) == "kubectl-ambit" {
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl ambit"}
	}
	setUp(root, s)
	root.AddCommand(newCompletion(s.Out, "ambit"), newLocal(s))
	root.AddCommand(part.Commands(s)...)
	return root
}

// localRoot gives the command ambit-local.
func localRoot(s Streams) *cobra.Command {
	root := newLocal(s)
	root.Use = "ambit-local"
	setUp(root, s)
	root.AddCommand(newCompletion(s.Out, "ambit-local"), &cobra.Command{
		Use: "version", Short: "Print the version", Example: "  ambit-local version", Args: Exactly(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(s.Out, Version())
			return err
		},
	})
	for _, c := range append(root.Commands(), root) {
		c.Example = alone(c.Example)
	}
	return root
}

// setUp makes a command one that others are under.
func setUp(root *cobra.Command, s Streams) {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.Args = UnknownCommand
	root.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return Usage(fmt.Errorf("%w: see %s --help", err, cmd.CommandPath()))
	})
	// Flags that exclude each other are checked by cobra, too, but not as wrong usage.
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := cmd.ValidateFlagGroups(); err != nil {
			return Usage(fmt.Errorf("%w: see %s --help", err, cmd.CommandPath()))
		}
		return nil
	}
	root.CompletionOptions.DisableDefaultCmd = true
}

// UnknownCommand refuses what no subcommand took.
func UnknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return Usage(fmt.Errorf("there is no command %q: see %s --help", args[0], cmd.CommandPath()))
	}
	return nil
}

// Exactly makes wrong numbers of arguments usage errors.
func Exactly(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return Usage(fmt.Errorf("%w: usage: %s", err, cmd.UseLine()))
		}
		return nil
	}
}

// Version says what this binary was built from.
func Version() string {
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

func newCompletion(out io.Writer, program string) *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use: "completion SHELL", Short: "Print a completion script for bash, zsh, fish or powershell",
		Example: "  source <(" + program + " completion bash)", ValidArgs: shells,
		Args: Exactly(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
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
