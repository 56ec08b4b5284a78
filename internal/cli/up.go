package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/internal/local"
	"github.com/ambit-mesh/ambit/internal/local/control"
	"github.com/ambit-mesh/ambit/internal/local/sandbox"
)

func newUp(s Streams, f *localFlags) *cobra.Command {
	o := local.Options{}
	var detach bool
	var timeout time.Duration
	var componentArgs []string
	cmd := &cobra.Command{
		Use:   "up -f DIR",
		Short: "Start a local mesh",
		Long: "Starts the nodes, the mesh and the workloads of a directory of manifests, and follows its edits.\n" +
			"Deployments, StatefulSets and Pods run as processes: container.command names a program of this\n" +
			"machine (looked for in --bin-dir, PATH and the manifest's directory) and container.image is not used.\n" +
			"Without --detach it runs until Ctrl-C.",
		Example: "  ambit local up -f examples/shop/manifests\n  ambit local up -f . --nodes 3 --detach\n" +
			"  ambit local up -f . --mesh=false",
		Args: Exactly(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Manifests == "" {
				return Usage(errors.New("up: -f DIR is required: the directory with the manifests"))
			}
			var err error
			if o.Args, err = parseComponentArgs(componentArgs); err != nil {
				return Usage(err)
			}
			o.Name, o.RuntimeDir = f.name, f.runtimeDir
			if detach {
				return upDetached(cmd.Context(), s, f, o, timeout)
			}
			return upForeground(cmd.Context(), s, f, o)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.Manifests, "file", "f", "", "directory of Kubernetes manifests")
	flags.IntVar(&o.Nodes, "nodes", 2, "number of nodes")
	flags.BoolVar(&o.Mesh, "mesh", true, "run the mesh; without it only the network and the workloads")
	flags.BoolVarP(&detach, "detach", "d", false, "return when everything is ready")
	flags.DurationVar(&timeout, "timeout", 2*time.Minute, "with --detach, how long to wait for that")
	flags.StringVar(&o.BinDir, "bin-dir", "", "directory of the mesh's programs; that of this one by default")
	flags.StringArrayVar(&componentArgs, "component-arg", nil, "further argument of one of the mesh's programs, such as ztunnel=--cert-ttl=1h; repeatable")
	flags.StringVar(&o.TrustDomain, "trust-domain", "cluster.local", "trust domain of the mesh's identities")
	flags.StringVar(&o.ClusterDomain, "cluster-domain", "cluster.local", "domain of service names")
	flags.StringVar(&o.LogLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

func parseComponentArgs(all []string) (map[string][]string, error) {
	args := make(map[string][]string)
	for _, a := range all {
		name, arg, ok := strings.Cut(a, "=")
		if !ok || !strings.HasPrefix(arg, "-") {
			return nil, fmt.Errorf("--component-arg %q: want PROGRAM=--FLAG=VALUE, such as ztunnel=--log-level=debug", a)
		}
		args[name] = append(args[name], arg)
	}
	return args, nil
}

func upForeground(ctx context.Context, s Streams, f *localFlags, o local.Options) error {
	path, err := f.path()
	if err != nil {
		return err
	}
	sb, err := local.Start(o)
	if err != nil {
		return err
	}
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		// It ends with the mesh, whose end is reported by Wait.
		_ = control.NewClient(path).Watch(watching, func(e control.Event) bool {
			printEvent(s.Out, e)
			if e.Ready {
				fmt.Fprintf(s.Out, "follows edits of %s; Ctrl-C ends it\n", o.Manifests)
			}
			return false
		})
	}()
	err = sb.Wait(ctx)
	stop()
	<-done
	return err
}

func printEvent(w io.Writer, e control.Event) {
	mark := " "
	if e.Level == "warn" {
		mark = "!"
	}
	fmt.Fprintf(w, "%s %s %s\n", e.Time.Format("15:04:05.000"), mark, e.Message)
}

// upDetached starts a mesh and returns when it is ready. A mesh that does not
// become ready is taken down again.
func upDetached(ctx context.Context, s Streams, f *localFlags, o local.Options, timeout time.Duration) error {
	path, err := f.path()
	if err != nil {
		return err
	}
	if err := local.StartDetached(o); err != nil {
		return err
	}
	client := control.NewClient(path)
	waiting, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not everything was ready within %s", timeout))
	defer cancel()
	err = client.Watch(waiting, func(e control.Event) bool {
		printEvent(s.Out, e)
		return e.Ready
	})
	if err != nil {
		why := diagnose(context.WithoutCancel(ctx), client, path)
		if errors.Is(err, io.EOF) {
			err = errors.New("the local mesh ended while it started")
		}
		return errors.Join(fmt.Errorf("%w%s", err, why), down(context.WithoutCancel(ctx), path, f.name, time.Second))
	}
	var st control.Status
	if err := client.Call(ctx, control.OpStatus, nil, &st); err != nil {
		return err
	}
	if len(st.Problems) > 0 {
		return fmt.Errorf("the local mesh runs, without what these problems concern; correct the files and it follows, or stop it by ambit local down --name %s:\n  %s",
			f.name, strings.Join(st.Problems, "\n  "))
	}
	return nil
}

// diagnose says what is not ready, with the last lines of its log.
func diagnose(ctx context.Context, client *control.Client, path string) string {
	var b strings.Builder
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var st control.Status
	if client.Call(ctx, control.OpStatus, nil, &st) != nil {
		return tail(filepath.Join(path, sandbox.LogName), "supervisor")
	}
	for _, c := range st.Components {
		if !c.Ready {
			fmt.Fprintf(&b, "\n%s is not ready: %s%s", c.Name, c.Message, tail(c.Log, c.Name))
		}
	}
	for _, p := range st.Pods {
		if p.Ready == "0/0" || strings.Split(p.Ready, "/")[0] != strings.Split(p.Ready, "/")[1] {
			var answer control.LogsAnswer
			fmt.Fprintf(&b, "\npod %s/%s is not ready: %s %s", p.Namespace, p.Name, p.State, p.Message)
			if client.Call(ctx, control.OpLogs, control.Target{Name: p.Name, Namespace: p.Namespace}, &answer) == nil {
				b.WriteString(tail(answer.Path, p.Name))
			}
		}
	}
	for _, p := range st.Problems {
		b.WriteString("\n" + p)
	}
	return b.String()
}

// tail gives the last lines of a file under a heading, or nothing.
func tail(path, name string) string {
	const size, lines = 16 << 10, 8
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > size {
		if _, err := f.Seek(-size, io.SeekEnd); err != nil {
			return ""
		}
	}
	raw, err := io.ReadAll(f)
	text := strings.TrimSpace(string(raw))
	if err != nil || text == "" {
		return ""
	}
	all := strings.Split(text, "\n")
	return fmt.Sprintf("\n  last lines of %s:\n    %s", name, strings.Join(all[max(0, len(all)-lines):], "\n    "))
}
