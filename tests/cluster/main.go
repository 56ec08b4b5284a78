// Command cluster runs a real Kubernetes of two nodes on one machine, in namespaces of its own: etcd, kube-apiserver,
// kube-controller-manager and kube-scheduler in one, containerd, kubelet and kube-proxy in one for each node, CoreDNS as
// pods. Nothing is added to the machine's own namespaces, and nothing is written outside of .cache/cluster.
//
//	cp:     br0 172.18.0.1/24 ── kube-apiserver :6443; also the outside world, from where tests look at the cluster
//	n1, n2: eth0 172.18.0.11, .12 ── pods 10.244.1.0/24, 10.244.2.0/24 (ptp), services 10.96.0.0/16
package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/tests/cluster/internal/binaries"
	"github.com/ambit-mesh/ambit/tests/cluster/internal/box"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := execute(ctx)
	var s said
	switch {
	case errors.As(err, &s):
		os.Exit(s.code)
	case err != nil:
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// said is the failure of a command in the cluster that has itself said why.
type said struct{ code int }

func (s said) Error() string { return fmt.Sprintf("exit code %d", s.code) }

func execute(ctx context.Context) error {
	// What runs on after this program must not hold what its caller has open: locks, or pipes that somebody reads to the end.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close-on-exec: %w", err)
	}
	c, err := locate()
	if err != nil {
		return err
	}
	root := &cobra.Command{Use: "cluster", Short: "Run a Kubernetes of two nodes on this machine", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(c.upCommand(), c.downCommand(), c.buildCommand(), c.checkCommand(), c.statusCommand(), c.loadCommand())
	root.AddCommand(
		c.inside("kubectl ARGS...", "Run kubectl as the administrator", func(args []string) (box.Box, string, []string, error) {
			return c.control, box.Network, append([]string{c.program("kubectl"), "--kubeconfig", c.kubeconfig("admin")}, args...), nil
		}),
		c.inside("in-node NODE CMD...", "Run a command in all namespaces of a node", c.named(box.Whole)),
		c.inside("in-net NODE|cp CMD...", "Run a command in the network of a node or, with KUBECONFIG set, of the control plane", c.named(box.Network)),
		&cobra.Command{Use: "init-control", Hidden: true, RunE: func(*cobra.Command, []string) error { return c.initControl() }},
		&cobra.Command{Use: "init-node NODE", Hidden: true, Args: cobra.ExactArgs(1), RunE: func(_ *cobra.Command, args []string) error {
			n, err := c.node(args[0])
			if err != nil {
				return err
			}
			return c.initNode(n)
		}},
	)
	return root.ExecuteContext(ctx)
}

func (c *cluster) upCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{Use: "up", Short: "Bring up what is not there yet", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		return c.alone(func() error { return c.up(cmd.Context(), o) })
	}}
	cmd.Flags().StringVar(&o.channel, "gateway-api", "experimental", "channel of the Gateway API's CRDs: experimental, standard or none")
	cmd.Flags().BoolVar(&o.crds, "crds", false, "apply Ambit's CRDs")
	cmd.Flags().BoolVar(&o.ambit, "ambit", true, "build and load Ambit's images")
	cmd.Flags().BoolVar(&o.images, "images", true, "build images; without it, those of the last time are loaded")
	return cmd
}

func (c *cluster) downCommand() *cobra.Command {
	var keep bool
	cmd := &cobra.Command{Use: "down [NODE...]", Short: "Take away the cluster, or some nodes as if their power had failed", RunE: func(_ *cobra.Command, args []string) error {
		for _, a := range args {
			if _, err := c.node(a); err != nil {
				return err
			}
		}
		return c.alone(func() error { return c.down(args, keep) })
	}}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave logs and data")
	return cmd
}

func (c *cluster) buildCommand() *cobra.Command {
	return &cobra.Command{Use: "build", Short: "Build the programs of Kubernetes, once", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		_, err := binaries.Build(cmd.Context(), c.root, os.Stderr)
		return err
	}}
}

func (c *cluster) checkCommand() *cobra.Command {
	return &cobra.Command{Use: "check", Short: "Say what keeps this machine from running a cluster", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		return c.check()
	}}
}

func (c *cluster) statusCommand() *cobra.Command {
	return &cobra.Command{Use: "status", Short: "Say what runs", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		for _, name := range []string{"cp", "n1", "n2"} {
			b, err := c.boxOf(name)
			if err != nil {
				return err
			}
			if pid, err := b.Pid(); err != nil {
				fmt.Printf("%s\t%v\n", name, err)
			} else {
				fmt.Printf("%s\tpid %d, logs in %s\n", name, pid, b.Dir)
			}
		}
		if _, err := c.control.Pid(); err != nil {
			return nil
		}
		out, err := c.kubectl(cmd.Context(), nil, "get", "nodes,pods", "-A", "-o", "wide")
		fmt.Print(string(out))
		return err
	}}
}

func (c *cluster) loadCommand() *cobra.Command {
	return &cobra.Command{Use: "load IMAGE.tar...", Short: "Import images into both nodes", Args: cobra.MinimumNArgs(1), RunE: func(_ *cobra.Command, args []string) error {
		for _, file := range args {
			abs, err := filepath.Abs(file)
			if err != nil {
				return err
			}
			for _, n := range c.nodes {
				if err := c.importImage(n, abs); err != nil {
					return err
				}
			}
		}
		return nil
	}}
}

// inside is a command that runs another one in a box, with this one's input and output.
func (c *cluster) inside(use, short string, where func([]string) (box.Box, string, []string, error)) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, DisableFlagParsing: true, Args: cobra.MinimumNArgs(1), RunE: func(_ *cobra.Command, args []string) error {
		b, space, args, err := where(args)
		if err != nil {
			return err
		}
		cmd, err := b.Command(space, args...)
		if err != nil {
			return fmt.Errorf("%w: run make cluster-up", err)
		}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		if b.Name == "cp" {
			cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig("admin"))
		}
		err = cmd.Run()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return said{exit.ExitCode()}
		}
		return err
	}}
}

func (c *cluster) named(space string) func([]string) (box.Box, string, []string, error) {
	return func(args []string) (box.Box, string, []string, error) {
		if len(args) < 2 {
			return box.Box{}, "", nil, errors.New("name a node, and a command to run")
		}
		b, err := c.boxOf(args[0])
		return b, space, args[1:], err
	}
}

// alone keeps two of these programs from changing the cluster at the same time.
func (c *cluster) alone(run func() error) error {
	if err := os.MkdirAll(c.cache, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(c.cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return run()
}
