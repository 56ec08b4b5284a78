package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/tests/cluster/internal/box"
)

// startNode starts a node, unless it runs, and waits until Kubernetes has it.
func (c *cluster) startNode(ctx context.Context, n node) error {
	if _, err := n.Pid(); err == nil {
		return c.importAll(n)
	}
	// A node whose power has failed comes back with its disk. Its programs and pods are gone, and so is /run.
	if err := os.MkdirAll(n.Dir, 0o755); err != nil {
		return err
	}
	if err := c.writeConfig(n); err != nil {
		return err
	}
	release, err := n.Start(filepath.Join(c.run, "cluster"), "init-node", n.Name)
	if err != nil {
		return err
	}
	if err := c.plug(n); err != nil {
		return err
	}
	if err := release(); err != nil {
		return err
	}
	if err := c.await(ctx, n.Name+" runs containerd", time.Minute, func() bool { return n.Run(box.Whole, "ctr", "version") == nil }); err != nil {
		return err
	}
	if err := c.importAll(n); err != nil {
		return err
	}
	if err := c.await(ctx, n.Name+" is registered", time.Minute, func() bool {
		_, err := c.kubectl(ctx, nil, "get", "node", n.Name)
		return err == nil
	}); err != nil {
		return err
	}
	patch := fmt.Sprintf(`{"spec":{"podCIDR":%q,"podCIDRs":[%q]}}`, n.pods(), n.pods())
	_, err = c.kubectl(ctx, nil, "patch", "node", n.Name, "-p", patch)
	return err
}

// plug connects a node to the control plane's bridge.
func (c *cluster) plug(n node) error {
	pid, err := n.Pid()
	if err != nil {
		return err
	}
	link := "veth-" + n.Name
	// After a failure of the node's power the kernel takes the former link away when it finds the time.
	if err := c.control.Run(box.Network, "ip", "link", "delete", link); err != nil && !strings.Contains(err.Error(), "Cannot find device") {
		return err
	}
	for _, cmd := range []string{
		fmt.Sprintf("ip link add %s type veth peer name eth0 netns %d", link, pid),
		fmt.Sprintf("ip link set %s master br0 up", link),
		fmt.Sprintf("ip route replace %s via %s", n.pods(), n.ip()),
	} {
		if err := c.control.Run(box.Network, strings.Fields(cmd)...); err != nil {
			return err
		}
	}
	if n.number > 1 {
		return nil
	}
	// Services are reached from outside through the first node.
	for _, to := range []string{serviceCIDR, lbCIDR} {
		if err := c.control.Run(box.Network, "ip", "route", "replace", to, "via", n.ip()); err != nil {
			return err
		}
	}
	return nil
}

// importAll gives a node all images that it has not had yet.
func (c *cluster) importAll(n node) error {
	files, err := filepath.Glob(filepath.Join(c.images, "*.tar"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := c.importOnce(n, f); err != nil {
			return err
		}
	}
	return nil
}

// importOnce imports a file unless it has been, as it is now.
func (c *cluster) importOnce(n node, file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	done := filepath.Join(n.Dir, "imported", filepath.Base(file))
	if d, err := os.Stat(done); err == nil && d.ModTime().Equal(info.ModTime()) {
		return nil
	}
	if err := c.importImage(n, file); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(done), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(done, nil, 0o644); err != nil {
		return err
	}
	return os.Chtimes(done, info.ModTime(), info.ModTime())
}

func (c *cluster) importImage(n node, file string) error {
	return n.Run(box.Whole, "ctr", "-n", "k8s.io", "images", "import", file)
}

// writeConfig writes the files of a node's programs.
func (c *cluster) writeConfig(n node) error {
	in := map[string]string{
		"NAME": n.Name, "DIR": n.Dir, "PKI": filepath.Join(c.run, "pki"), "PODS": n.pods(), "ALLPODS": podCIDR, "DNS": dnsIP,
		"PROXYCONFIG": c.kubeconfig("kube-proxy"), "PROXYMODE": proxyMode(),
	}
	files, err := configs.ReadDir("config")
	if err != nil {
		return err
	}
	for _, f := range files {
		text, err := configs.ReadFile("config/" + f.Name())
		if err != nil {
			return err
		}
		for k, v := range in {
			text = bytes.ReplaceAll(text, []byte("@"+k+"@"), []byte(v))
		}
		if err := os.WriteFile(filepath.Join(n.Dir, f.Name()), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// proxyMode is how kube-proxy works: nftables, or iptables if the environment says so.
func proxyMode() string {
	if m := os.Getenv("AMBIT_PROXY_MODE"); m != "" {
		return m
	}
	return "nftables"
}

func (c *cluster) nodePrograms(n node) []program {
	file := func(name string) string { return filepath.Join(n.Dir, name) }
	return []program{
		{"containerd", []string{"/usr/bin/containerd", "-c", file("containerd.toml")}},
		{"kubelet", []string{
			c.program("kubelet"), "--config=" + file("kubelet.yaml"), "--kubeconfig=" + c.kubeconfig("kubelet-"+n.Name),
			"--hostname-override=" + n.Name, "--node-ip=" + n.ip(),
		}},
		{"kube-proxy", []string{c.program("kube-proxy"), "--config=" + file("kube-proxy.yaml")}},
	}
}
