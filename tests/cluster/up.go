package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ambit-mesh/ambit/tests/cluster/internal/binaries"
	"github.com/ambit-mesh/ambit/tests/cluster/internal/box"
)

//go:embed config
var configs embed.FS

//go:embed manifests/coredns.yaml
var dns []byte

// options of up.
type options struct {
	channel string // of the Gateway API's CRDs: experimental, standard, none
	crds    bool   // Ambit's
	ambit   bool   // its images
	images  bool   // build any
}

// up brings up whatever of the cluster is not there.
func (c *cluster) up(ctx context.Context, o options) error {
	begin := time.Now()
	step := func(what string, run func() error) error {
		start := time.Now()
		if err := run(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		fmt.Printf("%5.1f s  %s (%.1f s)\n", time.Since(begin).Seconds(), what, time.Since(start).Seconds())
		return nil
	}
	for _, s := range []struct {
		what string
		run  func() error
	}{
		{"packages", c.packages},
		{"programs of Kubernetes", func() error { _, err := binaries.Build(ctx, c.root, os.Stderr); return err }},
		{"images", func() error { return c.buildImages(ctx, o) }},
		{"the machine's settings kept", c.keepSettings},
		{"control plane", func() error { return c.startControl(ctx) }},
		{"nodes registered", func() error { return c.startNodes(ctx) }},
		{"CRDs", func() error { return c.crds(ctx, o) }},
		{"nodes and DNS ready", func() error { return c.ready(ctx) }},
	} {
		if err := step(s.what, s.run); err != nil {
			return err
		}
	}
	return nil
}

// needed are programs and the Debian packages that have them.
func needed() map[string]string {
	return map[string]string{
		"/usr/bin/containerd": "containerd", "/usr/sbin/runc": "runc", plugins + "/ptp": "containernetworking-plugins", "/usr/sbin/iptables": "iptables",
		"/usr/sbin/nft": "nftables", "/usr/sbin/conntrack": "conntrack", "/usr/sbin/ip": "iproute2", "/usr/bin/nsenter": "util-linux", "/usr/sbin/sysctl": "procps",
	}
}

// packages installs what the nodes need of the machine.
func (c *cluster) packages() error {
	if os.Geteuid() != 0 {
		return errors.New("a cluster needs root: run it as root, or through sudo")
	}
	missing := missingPackages()
	if len(missing) == 0 {
		return nil
	}
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		return fmt.Errorf("missing: %s; install these packages of your distribution (programs are looked for where Debian puts them)", strings.Join(missing, " "))
	}
	fmt.Println("installing", strings.Join(missing, " "))
	install := append([]string{"env", "DEBIAN_FRONTEND=noninteractive", apt, "install", "-y", "-qq", "--no-install-recommends"}, missing...)
	if err := do(install...); err == nil {
		return nil
	}
	if err := do(apt, "update", "-qq"); err != nil {
		return fmt.Errorf("missing: %s; apt-get update failed, install them by hand: %w", strings.Join(missing, " "), err)
	}
	return do(install...)
}

// buildImages builds those of the cluster itself and, unless it is told otherwise, Ambit's.
func (c *cluster) buildImages(ctx context.Context, o options) error {
	if !o.images {
		return nil
	}
	specs := []string{"tests/cluster/images.yaml"}
	if o.ambit {
		specs = append(specs, "manifests/images.yaml")
	}
	tool := filepath.Join(c.cache, "images-tool")
	if err := c.tool(ctx, "go", "build", "-C", filepath.Join(c.root, "tools", "images"), "-o", tool, "."); err != nil {
		return err
	}
	for _, s := range specs {
		if err := c.tool(ctx, tool, "-f", filepath.Join(c.root, s), "-root", c.root, "-o", c.images, "-platforms", "linux/"+runtime.GOARCH, "-layout=false"); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) tool(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = c.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (c *cluster) startNodes(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range c.nodes {
		g.Go(func() error { return c.startNode(ctx, n) })
	}
	return g.Wait()
}

// crds applies the Gateway API's CRDs of the version in go.mod, and Ambit's.
func (c *cluster) crds(ctx context.Context, o options) error {
	if o.channel != "none" {
		cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api")
		cmd.Dir = c.root
		dir, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("folder of the Gateway API's module: %w: run go mod download", err)
		}
		channel := o.channel
		if channel == "standard" {
			channel = "." // the list of the standard channel is one folder up
		}
		// All at once: its admission policy refuses the other channel's later.
		if _, err := c.kubectl(ctx, nil, "apply", "--server-side", "-k", filepath.Join(strings.TrimSpace(string(dir)), "config", "crd", channel)); err != nil {
			return err
		}
	}
	if o.crds {
		_, err := c.kubectl(ctx, nil, "apply", "--server-side", "-f", filepath.Join(c.root, "manifests", "crds"))
		return err
	}
	return nil
}

func (c *cluster) ready(ctx context.Context) error {
	if _, err := c.kubectl(ctx, dns, "apply", "--server-side", "-f", "-"); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"wait", "--for=condition=Ready", "node", "--all", "--timeout=180s"},
		{"-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=180s"},
		{"wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"},
	} {
		out, err := c.kubectl(ctx, nil, args...)
		if err != nil && !bytes.Contains(out, []byte("no matching resources")) {
			return err
		}
	}
	return nil
}

// kubectl runs kubectl in the control plane's network and gives what it printed.
func (c *cluster) kubectl(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	cmd, err := c.control.Command(box.Network, append([]string{c.program("kubectl"), "--kubeconfig", c.kubeconfig("admin")}, args...)...)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return out, fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return out, nil
}

// await polls until something holds.
func (c *cluster) await(ctx context.Context, what string, within time.Duration, holds func() bool) error {
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return fmt.Errorf("not within %v: %s; the logs are in %s", within, what, c.run)
		case <-tick.C:
		}
	}
	return nil
}
