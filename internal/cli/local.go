package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/internal/local/control"
	"github.com/ambit-mesh/ambit/internal/local/sandbox"
)

// localFlags are those of all ambit local commands.
type localFlags struct {
	name       string
	runtimeDir string
}

func newLocal(s Streams) *cobra.Command {
	var f localFlags
	cmd := &cobra.Command{
		Use:   "local",
		Short: "Run a whole mesh on this machine",
		Long: "Runs a whole mesh on this machine: network namespaces as nodes and pods, processes as\n" +
			"containers, described by ordinary Kubernetes manifests. No root, no images, no daemon.",
		Example: "  ambit local up -f examples/shop/manifests --detach\n  ambit local status\n" +
			"  ambit local exec deploy/web -n shop -- curl -s http://cart:8080/\n  ambit local down",
		Args: UnknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringVar(&f.name, "name", "default", "name of the local mesh")
	cmd.PersistentFlags().StringVar(&f.runtimeDir, "runtime-dir", sandbox.RuntimeDir(), "where the state of local meshes is kept while they run")
	cmd.AddCommand(newUp(s, &f), newDown(s, &f), newStatus(s, &f), newGet(s, &f), newExec(s, &f), newLogs(s, &f), newObserve(s, &f), newEdges(s, &f), newExplain(s, &f), newRestart(&f))
	return cmd
}

// path gives the state directory.
func (f *localFlags) path() (string, error) {
	path, err := sandbox.Path(f.runtimeDir, f.name)
	if err != nil {
		return "", Usage(fmt.Errorf("--name: %w", err))
	}
	return path, nil
}

// client gives a client of the running mesh.
func (f *localFlags) client() (*control.Client, error) {
	path, err := f.path()
	if err != nil {
		return nil, err
	}
	if !sandbox.Running(path) {
		return nil, &sandbox.NotRunningError{Name: f.name}
	}
	return control.NewClient(path), nil
}

func newExec(s Streams, f *localFlags) *cobra.Command {
	var t control.Target
	cmd := &cobra.Command{
		Use:   "exec TARGET [flags] -- COMMAND [ARG...]",
		Short: "Run a program in a pod or on a node",
		Long: "Runs a program of this machine in a pod's namespaces, with the environment of its container.\n" +
			"TARGET is a pod, deploy/NAME, sts/NAME or svc/NAME, a node such as n1 (its network namespace), or\n" +
			"wire (the network between the nodes).",
		Example: "  ambit local exec deploy/web -n shop -- curl -s http://cart:8080/\n" +
			"  ambit local exec n1 -- ip route\n  ambit local exec wire -- tcpdump -ni br0",
		Args: Exactly(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.ArgsLenAtDash() != 1 {
				return Usage(errors.New("exec: write -- between the target and the command"))
			}
			t.Name = args[0]
			return runExec(cmd.Context(), s, f, t, args[1:])
		},
	}
	cmd.Flags().StringVarP(&t.Namespace, "namespace", "n", "", "namespace of the pod; needed where the name is in several")
	cmd.Flags().StringVarP(&t.Container, "container", "c", "", "container whose environment to use; the first by default")
	return cmd
}

func runExec(ctx context.Context, s Streams, f *localFlags, t control.Target, argv []string) error {
	client, err := f.client()
	if err != nil {
		return err
	}
	signals, stop := forwarded()
	defer stop()
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	args := control.ExecArgs{Target: t, Argv: argv, Dir: dir}
	if term, ok := os.LookupEnv("TERM"); ok {
		args.Env = []string{"TERM=" + term}
	}
	// Signals go to the program, which decides what they mean.
	code, err := client.Exec(context.WithoutCancel(ctx), args, [3]*os.File{s.In, s.Out, s.Err}, signals)
	if err != nil {
		return err
	}
	if code != 0 {
		return exitError{code}
	}
	return nil
}

func newRestart(f *localFlags) *cobra.Command {
	var signal int
	cmd := &cobra.Command{
		Use:     "restart COMPONENT",
		Short:   "End one of the mesh's processes, which is then started again",
		Example: "  ambit local restart n1/ztunnel\n  ambit local restart controlplane --signal 9",
		Args:    Exactly(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := f.client()
			if err != nil {
				return err
			}
			return client.Call(cmd.Context(), control.OpRestart, control.RestartArgs{Component: args[0], Signal: signal}, nil)
		},
	}
	cmd.Flags().IntVar(&signal, "signal", 15, "number of the signal that ends it")
	return cmd
}
