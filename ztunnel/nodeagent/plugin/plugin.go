package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/enrolled"
)

const (
	// errNotAvailable is what the specification has STATUS answer.
	errNotAvailable = 50
	// retryPause is the time between two looks for an agent that is away.
	retryPause = 250 * time.Millisecond
	// delTimeout bounds what a deletion tells the agent, which would notice anyway.
	delTimeout = 2 * time.Second
	// checkTimeout bounds checks.
	checkTimeout = 5 * time.Second
)

// Versions are those of the CNI specification that the plugin speaks.
func Versions() version.PluginInfo {
	return version.PluginSupports("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
}

// Funcs are the plugin's commands. Results go to out, notes for the runtime's log
// to log.
func Funcs(out, log io.Writer) skel.CNIFuncs {
	p := &plugin{out: out, log: log}
	return skel.CNIFuncs{Add: p.add, Del: p.del, Check: p.check, GC: p.gc, Status: p.status}
}

type plugin struct {
	out, log io.Writer
}

// add returns when the pod may start.
func (p *plugin) add(args *skel.CmdArgs) error {
	in, err := parseInput(args.StdinData)
	if err != nil {
		return err
	}
	if len(in.PrevResult) == 0 || string(in.PrevResult) == "null" {
		return types.NewError(types.ErrInvalidNetworkConfig, "ambit-cni: there is no result of a plugin before this one", "ambit-cni must stand behind the primary CNI's plugin in the list")
	}
	pod := parsePod(args)
	if pod.ips, err = addresses(in.PrevResult); err != nil {
		return types.NewError(types.ErrDecodingFailure, "ambit-cni: result of the plugin before this one", err.Error())
	}
	// Without a name it is no pod of Kubernetes and cannot be enrolled.
	if pod.name != "" && !slices.Contains(in.ExemptNamespaces, pod.namespace) {
		ctx, cancel := context.WithTimeout(context.Background(), in.timeout())
		defer cancel()
		if err := p.start(ctx, &in.Config, pod); err != nil {
			return err
		}
	}
	_, err = p.out.Write(append(in.PrevResult, '\n'))
	return err
}

// start waits until the pod may start.
func (p *plugin) start(ctx context.Context, c *Config, pod *pod) error {
	body := map[string]any{"netns": pod.netns, "podName": pod.name, "podNamespace": pod.namespace, "podUID": pod.uid, "ips": pod.ips}
	for {
		err := ask(ctx, c.Socket, "/cmdadd", body)
		var refused refusal
		switch {
		case err == nil:
			return nil
		case errors.As(err, &refused) && refused.final:
			return types.NewError(types.ErrInternal, "ambit-cni: "+refused.text, "")
		case errors.As(err, &refused):
			return types.NewError(types.ErrTryAgainLater, "ambit-cni: "+refused.text, "")
		case !errors.Is(err, errAway):
			return types.NewError(types.ErrInternal, "ambit-cni: "+err.Error(), "")
		}
		must, why := mustWait(c, pod)
		if !must {
			fmt.Fprintf(p.log, "ambit-cni: pod %s starts outside the mesh, its namespace is not enrolled: %v\n", pod, err)
			return nil
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return types.NewError(types.ErrTryAgainLater, fmt.Sprintf("ambit-cni: pod %s is not started outside the mesh: %s, and %v", pod, why, err),
				"look at the pod of DaemonSet ambit-nodeagent on this node; the pod starts when the agent is back")
		}
	}
}

// mustWait tells whether a pod may not start while the agent is away.
func mustWait(c *Config, pod *pod) (must bool, why string) {
	names, err := enrolled.Read(c.EnrolledFile)
	switch {
	case err != nil:
		return true, "what was enrolled is not known: " + err.Error()
	case slices.Contains(names, pod.namespace):
		return true, fmt.Sprintf("namespace %s is enrolled", pod.namespace)
	}
	return false, ""
}

// del tells the agent. A pod's end never depends on that: rules end with the
// pod's network namespace, and the agent notices.
func (p *plugin) del(args *skel.CmdArgs) error {
	in, err := parseInput(args.StdinData)
	if err != nil {
		fmt.Fprintln(p.log, err)
		return nil
	}
	pod := parsePod(args)
	if pod.uid == "" || slices.Contains(in.ExemptNamespaces, pod.namespace) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), delTimeout)
	defer cancel()
	if err := ask(ctx, in.Socket, "/cmddel", map[string]any{"podUID": pod.uid, "netns": netnsOrNone(args.Netns)}); err != nil {
		fmt.Fprintf(p.log, "ambit-cni: deletion of pod %s: %v\n", pod, err)
	}
	return nil
}

// netnsOrNone keeps a path that the runtime left out from becoming a dot.
func netnsOrNone(path string) string {
	if path == "" {
		return ""
	}
	return parsePod(&skel.CmdArgs{Netns: path}).netns
}

// check asks whether the pod is as the agent wants it.
func (p *plugin) check(args *skel.CmdArgs) error {
	in, err := parseInput(args.StdinData)
	if err != nil {
		return err
	}
	pod := parsePod(args)
	if pod.uid == "" || slices.Contains(in.ExemptNamespaces, pod.namespace) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	err = ask(ctx, in.Socket, "/cmdcheck", map[string]any{"podUID": pod.uid})
	if errors.Is(err, errAway) {
		if must, _ := mustWait(&in.Config, pod); !must {
			return nil
		}
	}
	if err != nil {
		return types.NewError(types.ErrTryAgainLater, fmt.Sprintf("ambit-cni: pod %s: %v", pod, err), "")
	}
	return nil
}

// status tells whether additions can be decided: by the agent, or without it.
func (p *plugin) status(args *skel.CmdArgs) error {
	in, err := parseInput(args.StdinData)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	away := ask(ctx, in.Socket, "/status", struct{}{})
	if away == nil {
		return nil
	}
	if _, err := enrolled.Read(in.EnrolledFile); err != nil {
		return types.NewError(errNotAvailable, fmt.Sprintf("ambit-cni: no pod can start: %v, and %v", away, err), "")
	}
	return nil
}

// gc has nothing to collect: the plugin keeps nothing, and the agent notices
// network namespaces that are gone.
func (p *plugin) gc(*skel.CmdArgs) error { return nil }
