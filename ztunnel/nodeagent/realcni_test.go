package nodeagent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/netns/netnstest"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/capture"
)

// With the CNI project's own ptp plugin as the primary CNI, configured as a single
// plugin: a pod gets its network from it and its rules from us, and the node's
// probes reach it, though nobody else gets in.
func TestWithThePtpPlugin(t *testing.T) {
	const debian = "/usr/lib/cni"
	if _, err := os.Stat(filepath.Join(debian, "ptp")); err != nil {
		t.Skip("containernetworking-plugins is not installed")
	}
	b := newBed(t)
	r := newRuntime(b)
	node := netnstest.New(t)
	conf := `{"cniVersion": "1.0.0", "name": "net", "type": "ptp", "ipam": {"type": "host-local", "subnet": "10.66.0.0/24", "dataDir": "` + b.path("ipam") + `", "routes": [{"dst": "0.0.0.0/0"}]}}`
	if err := os.Remove(filepath.Join(r.conf, "10-net.conflist")); err != nil {
		t.Fatal(err)
	}
	single := filepath.Join(r.conf, "10-ptp.conf")
	if err := os.WriteFile(single, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	b.plane.namespace(t, "shop", true)
	b.plane.pod(t, "u1", true)
	b.plane.arrive()
	var cfg Config
	b.startWith(func(c *Config) {
		r.set(c)
		c.HostProbes, c.host = true, node
		cfg = *c
	})
	b.startProxy()
	list := filepath.Join(r.conf, "10-ptp.conf.conflist")
	netnstest.Eventually(t, "the plugin is installed", func() bool { _, err := os.Stat(list); return err == nil && len(b.agent.ready.Pending()) == 0 })

	pod := netnstest.New(t)
	path := b.mount(pod)
	parsed, err := libcni.NetworkConfFromFile(list)
	if err != nil {
		t.Fatal(err)
	}
	cni := libcni.NewCNIConfigWithCacheDir([]string{r.bin, debian}, b.path("cache"), nil)
	rt := &libcni.RuntimeConf{
		ContainerID: "c-1", NetNS: path, IfName: "eth0",
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "shop"}, {"K8S_POD_NAME", "app-u1"}, {"K8S_POD_UID", "u1"}},
	}
	var result []byte
	// Plugins work in the node's network namespace.
	err = node.Do(func() error {
		res, err := cni.AddNetworkList(context.Background(), parsed, rt)
		if err != nil {
			return err
		}
		result, err = json.Marshal(res)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddr("10.66.0.2")
	if !strings.Contains(string(result), addr.String()) {
		t.Errorf("result %s", result)
	}
	if state, err := b.capturer.Inspect(pod); err != nil || state != capture.Captured {
		t.Errorf("rules are %s, %v", state, err)
	}
	b.serve(pod, 8080)
	netnstest.Eventually(t, "the node's probe gets through", func() bool {
		c, err := netns.Dial(t.Context(), node, netns.DialOptions{}, netip.AddrPortFrom(addr, 8080))
		if err != nil {
			return false
		}
		defer c.Close()
		line := make([]byte, 5)
		n, _ := c.Read(line)
		return string(line[:n]) == "peer\n"
	})
	if err := node.Do(func() error { return cni.DelNetworkList(context.Background(), parsed, rt) }); err != nil {
		t.Fatal(err)
	}
	if got := b.agent.pods.Dump().Pods[0].Netns; got != "" {
		t.Errorf("the agent still knows %s", got)
	}
	if err := Uninstall(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(single); err != nil || string(got) != conf {
		t.Errorf("the CNI's file is %s, %v", got, err)
	}
	if _, err := os.Stat(list); err == nil {
		t.Error("the list that was made of it is still there")
	}
}

// mount gives a path to a namespace of the test's, which lasts as long as the test.
func (b *bed) mount(ns *netns.Namespace) string {
	b.t.Helper()
	path := b.path("pod-netns")
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		b.t.Fatal(err)
	}
	err := ns.WithFD(func(fd int) error {
		return unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), path, "", unix.MS_BIND, "")
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	return path
}
