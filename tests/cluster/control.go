package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/tests/cluster/internal/pki"
)

// startControl starts the control plane, unless it runs.
func (c *cluster) startControl(ctx context.Context) error {
	if _, err := c.control.Pid(); err == nil {
		return nil
	}
	if err := os.MkdirAll(c.control.Dir, 0o755); err != nil {
		return err
	}
	if err := c.identities(); err != nil {
		return err
	}
	release, err := c.control.Start(filepath.Join(c.run, "cluster"), "init-control")
	if err != nil {
		return err
	}
	if err := release(); err != nil {
		return err
	}
	return c.await(ctx, "kube-apiserver answers", time.Minute, func() bool {
		out, err := c.kubectl(ctx, nil, "get", "--raw", "/readyz")
		return err == nil && bytes.Equal(out, []byte("ok"))
	})
}

// identities makes all certificates and kubeconfigs.
func (c *cluster) identities() error {
	keys, err := pki.New(c.run, server, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost", "127.0.0.1", controlIP, serviceIP)
	if err != nil {
		return err
	}
	for _, name := range []string{"kube-controller-manager", "kube-scheduler", "kube-proxy"} {
		if err := keys.Kubeconfig(name, pki.Subject{Name: "system:" + name}); err != nil {
			return err
		}
	}
	for _, n := range c.nodes {
		who := pki.Subject{Name: "system:node:" + n.Name, Group: "system:nodes", Hosts: []string{n.Name, n.ip()}}
		if err := keys.Serve("kubelet-"+n.Name, who); err != nil {
			return err
		}
		if err := keys.Kubeconfig("kubelet-"+n.Name, who); err != nil {
			return err
		}
	}
	return nil
}

// initControl is the first process of the control plane's namespaces.
func (c *cluster) initControl() error {
	if err := ownProc(); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"ip", "link", "set", "lo", "up"},
		{"ip", "link", "add", "br0", "type", "bridge"},
		{"ip", "addr", "add", lan, "dev", "br0"},
		{"ip", "link", "set", "br0", "up"},
		{"sysctl", "-qw", "net.ipv4.ip_forward=1"},
	} {
		if err := do(args...); err != nil {
			return err
		}
	}
	if err := handshake(); err != nil {
		return err
	}
	return supervise(c.control.Dir, c.controlPrograms())
}

func (c *cluster) controlPrograms() []program {
	const etcd = "http://127.0.0.1:2379"
	const peer = "http://127.0.0.1:2380"
	keys := (&pki.ControlPlane{PKI: filepath.Join(c.run, "pki")}).APIServerFlags()
	file := func(name string) string { return filepath.Join(c.run, "pki", name) }
	as := func(name string) []string {
		k := c.kubeconfig(name)
		return []string{c.program(name), "--kubeconfig=" + k, "--authentication-kubeconfig=" + k, "--authorization-kubeconfig=" + k, "--leader-elect=false"}
	}
	return []program{
		{"etcd", []string{
			c.program("etcd"), "--data-dir=" + filepath.Join(c.control.Dir, "etcd"), "--unsafe-no-fsync", "--log-level=warn",
			"--listen-client-urls=" + etcd, "--advertise-client-urls=" + etcd,
			"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=default=" + peer,
		}},
		{"kube-apiserver", append([]string{
			c.program("kube-apiserver"), "--etcd-servers=" + etcd, "--bind-address=0.0.0.0", "--secure-port=6443", "--advertise-address=" + controlIP,
			"--service-cluster-ip-range=" + serviceCIDR,
			// There is no kube-proxy here: webhooks are called at the addresses of their endpoints.
			"--enable-aggregator-routing=true",
		}, keys...)},
		{"kube-controller-manager", append(as("kube-controller-manager"),
			"--service-account-private-key-file="+file("sa.key"), "--root-ca-file="+file("ca.crt"), "--use-service-account-credentials",
			"--cluster-signing-cert-file="+file("ca.crt"), "--cluster-signing-key-file="+file("ca.key"), "--allocate-node-cidrs=false")},
		{"kube-scheduler", as("kube-scheduler")},
	}
}

// ownProc shows the processes of this pid namespace in /proc, in a mount namespace that others do not share.
func ownProc() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

func do(args ...string) error {
	cmd := exec.Command(args[0], args[1:]...) //nolint:noctx // short
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", args, err, bytes.TrimSpace(out))
	}
	return nil
}
