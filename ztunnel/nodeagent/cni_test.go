package nodeagent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/nftables"

	nodepb "github.com/ambit-mesh/ambit/apis/node"
	"github.com/ambit-mesh/ambit/internal/netns/netnstest"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/capture"
)

// primary is a CNI plugin of a few lines. Its result has what no library knows.
const primary = `#!/bin/sh
case $CNI_COMMAND in
ADD) echo '{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.1/24"}],"theirs":{"n":1.50}}' ;;
VERSION) echo '{"cniVersion":"1.1.0","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}' ;;
esac
`

const primaryConf = `{"cniVersion": "1.1.0", "name": "net",  "plugins": [ {"type": "primary"} ]}
`

// runtime is a container runtime with a primary CNI, on the node of a bed.
type runtime struct {
	b         *bed
	conf, bin string
	plugin    string // built
}

func newRuntime(b *bed) *runtime {
	b.t.Helper()
	r := &runtime{b: b, conf: b.path("net.d"), bin: b.path("bin"), plugin: b.path("ambit-cni")}
	for _, d := range []string{r.conf, r.bin} {
		if err := os.Mkdir(d, 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	for path, text := range map[string]string{filepath.Join(r.bin, "primary"): primary, filepath.Join(r.conf, "10-net.conflist"): primaryConf} {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-o", r.plugin, "github.com/ambit-mesh/ambit/cmd/cni")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("build: %v\n%s", err, out)
	}
	return r
}

// set makes the agent install the plugin, with little patience.
func (r *runtime) set(c *Config) {
	c.CNI = CNIConfig{ConfDir: r.conf, BinDir: r.bin, Program: r.plugin, ExemptNamespaces: []string{"ambit-system"}}
	c.UninstallDrain = 200 * time.Millisecond
	c.StartTimeout = time.Second
}

func (r *runtime) installed() bool {
	b, err := os.ReadFile(filepath.Join(r.conf, "10-net.conflist"))
	return err == nil && strings.Contains(string(b), "ambit-cni")
}

// add runs ADD of every plugin in the configuration, as containerd and CRI-O do.
func (r *runtime) add(p *testPod, namespace string) (result string, err error) {
	r.b.t.Helper()
	c, list, rt := r.call(p, namespace)
	res, err := c.AddNetworkList(context.Background(), list, rt)
	if err != nil {
		return "", err
	}
	raw, err := json.Marshal(res)
	if err != nil {
		r.b.t.Fatal(err)
	}
	return string(raw), nil
}

func (r *runtime) call(p *testPod, namespace string) (*libcni.CNIConfig, *libcni.NetworkConfigList, *libcni.RuntimeConf) {
	r.b.t.Helper()
	list, err := libcni.NetworkConfFromFile(filepath.Join(r.conf, "10-net.conflist"))
	if err != nil {
		r.b.t.Fatal(err)
	}
	return libcni.NewCNIConfigWithCacheDir([]string{r.bin}, r.b.path("cache"), nil), list, &libcni.RuntimeConf{
		ContainerID: "c-" + p.uid, NetNS: p.path, IfName: "eth0",
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", namespace}, {"K8S_POD_NAME", "app-" + p.uid}, {"K8S_POD_UID", p.uid}},
	}
}

func wantCode(t *testing.T, err error, code uint, text string) {
	t.Helper()
	e, ok := errors.AsType[*types.Error](err)
	if !ok || e.Code != code || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v, want code %d and %q", err, code, text)
	}
}

// A pod goes through the runtime's whole list of plugins, the agent there or not.
func TestTheRuntimeStartsPodsThroughTheAgent(t *testing.T) {
	b := newBed(t)
	r := newRuntime(b)
	b.plane.namespace(t, "shop", true)
	b.plane.namespace(t, "bank", false)
	b.plane.arrive()
	b.startWith(r.set)
	b.startProxy()
	netnstest.Eventually(t, "the plugin is installed and the agent ready", func() bool { return r.installed() && len(b.agent.ready.Pending()) == 0 })

	p := b.newPod("u1")
	b.plane.pod(t, "u1", true)
	result, err := r.add(p, "shop")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(result, "10.0.0.1/24") || p.state() != capture.Captured {
		t.Errorf("result %s, rules %s", result, p.state())
	}
	c, list, rt := r.call(p, "shop")
	if err := c.CheckNetworkList(t.Context(), list, rt); err != nil {
		t.Errorf("check: %v", err)
	}
	if err := c.GetStatusNetworkList(t.Context(), list); err != nil {
		t.Errorf("status: %v", err)
	}

	// Nobody opens its listeners: the start fails, and may be tried again.
	b.proxy.set(fmt.Errorf("no certificate"), nil)
	refused := b.newPod("u2")
	b.plane.pod(t, "u2", true)
	_, err = r.add(refused, "shop")
	wantCode(t, err, types.ErrTryAgainLater, "no certificate")
	b.proxy.set(nil, nil)

	// The agent is away.
	b.stopAgent()
	away := b.newPod("u3")
	if _, err := r.add(away, "bank"); err != nil {
		t.Errorf("a pod that is not enrolled: %v", err)
	}
	if _, err := r.add(b.newPod("u4"), "ambit-system"); err != nil {
		t.Errorf("a pod of the mesh: %v", err)
	}
	r.patience(1)
	late := b.newPod("u5")
	_, err = r.add(late, "shop")
	wantCode(t, err, types.ErrTryAgainLater, "namespace shop is enrolled")
	if err := c.GetStatusNetworkList(t.Context(), list); err != nil {
		t.Errorf("status, though pods that are not enrolled can start: %v", err)
	}
	c, list, rt = r.call(p, "shop")
	if err := c.DelNetworkList(t.Context(), list, rt); err != nil {
		t.Errorf("a pod cannot end: %v", err)
	}
	// What was enrolled cannot be read: nothing starts but the mesh.
	if err := os.WriteFile(b.path("state")+"/enrolled.json", []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = r.add(away, "bank")
	wantCode(t, err, types.ErrTryAgainLater, "damaged")
	if err := c.GetStatusNetworkList(t.Context(), list); err == nil {
		t.Error("status is good, and no pod can start")
	}
	if _, err := r.add(b.newPod("u6"), "ambit-system"); err != nil {
		t.Errorf("a pod of the mesh: %v", err)
	}
	// The agent comes back while the pod waits.
	r.patience(20)
	started := make(chan error, 1)
	go func() { _, err := r.add(late, "shop"); started <- err }()
	b.plane.pod(t, "u5", true)
	b.startWith(func(c *Config) { r.set(c); c.StartTimeout = 10 * time.Second })
	if err := <-started; err != nil {
		t.Error(err)
	}
	if late.state() != capture.Captured {
		t.Errorf("started while rules are %s", late.state())
	}
}

// patience sets how long the plugin waits.
func (r *runtime) patience(seconds int) {
	r.b.t.Helper()
	path := filepath.Join(r.conf, "10-net.conflist")
	b, err := os.ReadFile(path)
	if err != nil {
		r.b.t.Fatal(err)
	}
	i := strings.Index(string(b), `"timeoutSeconds":`)
	j := i + strings.Index(string(b[i:]), "}")
	if err := os.WriteFile(path, fmt.Appendf(nil, `%s"timeoutSeconds":%d%s`, b[:i], seconds, b[j:]), 0o644); err != nil {
		r.b.t.Fatal(err)
	}
}

// The result of the CNI is passed on byte for byte.
func TestThePluginPassesTheResultOn(t *testing.T) {
	b := newBed(t)
	r := newRuntime(b)
	const result = `{"cniVersion":"0.3.1","ips":[{"version":"4","address":"10.0.0.1/24"}],"theirs":{"n":1.50, "a":[]}}`
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		cmd := exec.Command(r.plugin)
		cmd.Env = []string{
			"CNI_COMMAND=ADD", "CNI_CONTAINERID=c", "CNI_NETNS=/proc/1/ns/mnt-no", "CNI_IFNAME=eth0", "CNI_PATH=" + r.bin,
			"CNI_ARGS=K8S_POD_NAMESPACE=ambit-system;K8S_POD_NAME=a;K8S_POD_UID=u",
		}
		cmd.Stdin = strings.NewReader(`{"cniVersion":"` + version + `","name":"net","type":"ambit-cni","socket":"/s","enrolledFile":"/e","exemptNamespaces":["ambit-system"],"prevResult":` + result + `}`)
		out, err := cmd.Output()
		if err != nil || string(out) != result+"\n" {
			t.Errorf("%s: %s, %v", version, out, err)
		}
	}
}

// A pod that ran before there was a plugin is captured when its namespace is
// enrolled, and after it an agent that has lost its state finds it again.
func TestARunningPodIsFound(t *testing.T) {
	b := newBed(t)
	proc, dir := b.path("proc"), b.path("netns")
	const uid = "4f1c2b7a-91d2-4c3e-8f6a-0123456789ab"
	p := b.newPod(uid)
	addr := p.peerAddr().Addr().Next()
	pid := strings.Split(p.path, "/")[2]
	if err := os.MkdirAll(filepath.Join(proc, pid, "ns"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(proc, pid, "cgroup"), []byte("0::/kubepods/pod"+uid+"/c\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(p.path, filepath.Join(proc, pid, "ns", "net")); err != nil {
		t.Fatal(err)
	}
	b.plane.arrive()
	set := func(c *Config) { c.ProcDir, c.NetnsDir = proc, dir }
	b.startWith(set)
	b.startProxy()
	b.plane.podAt(t, uid, addr, false)
	b.plane.podAt(t, "aaaaaaaa-91d2-4c3e-8f6a-0123456789ab", netip.MustParseAddr("10.77.0.1"), true) // of which there is nothing
	p.wantVia("peer")
	b.plane.podAt(t, uid, addr, true)
	netnstest.Eventually(t, "the pod is captured", func() bool { return b.plane.is(uid, nodepb.PodState_CAPTURED) })
	p.wantVia("ztunnel")
	b.stopAgent()
	if err := os.Remove(b.path("state") + "/pods.json"); err != nil {
		t.Fatal(err)
	}
	b.startWith(set)
	netnstest.Eventually(t, "the pod is known again", func() bool { return b.plane.is(uid, nodepb.PodState_CAPTURED) && b.proxy.has(uid) })
	p.wantVia("ztunnel")
}

// A static pod has one uid for the kubelet and another for the control plane.
func TestAStaticPodIsCaptured(t *testing.T) {
	b := newBed(t)
	b.plane.namespace(t, "shop", true)
	b.plane.arrive()
	b.start()
	b.startProxy()
	const static = "0123456789abcdef0123456789abcdef"
	p := b.newPod(static)
	answered := make(chan int, 1)
	go func() { status, _ := p.add(); answered <- status }()
	b.plane.put(t, typePod, "mirror", &nodepb.Pod{Uid: "mirror", Name: "app-" + static, Namespace: "shop", ServiceAccount: "app", Captured: true})
	if status := <-answered; status != 200 || p.state() != capture.Captured {
		t.Fatalf("status %d, rules %s", status, p.state())
	}
	netnstest.Eventually(t, "it is reported by its mirror", func() bool { return b.plane.is("mirror", nodepb.PodState_CAPTURED) })
	if status, problem := b.post("/cmddel", map[string]any{"podUID": static}); status != 200 || len(b.agent.pods.Dump().Pods) != 1 || b.agent.pods.Dump().Pods[0].Netns != "" {
		t.Errorf("%d %s; %+v", status, problem, b.agent.pods.Dump().Pods)
	}
}

// The old sandbox of a pod that has a new one is deleted late.
func TestALateDeletionLeavesTheNewSandbox(t *testing.T) {
	b := newBed(t)
	b.plane.pod(t, "u1", true)
	b.plane.arrive()
	b.start()
	b.startProxy()
	p := b.newPod("u1")
	p.mustAdd()
	b.post("/cmddel", map[string]any{"podUID": "u1", "netns": "/run/netns/old"})
	if !b.proxy.has("u1") || b.agent.pods.Dump().Pods[0].Netns != p.path {
		t.Error("the new sandbox was forgotten")
	}
	if b.post("/cmddel", map[string]any{"podUID": "u1", "netns": p.path}); b.agent.pods.Dump().Pods[0].Netns != "" {
		t.Error("the sandbox is still known")
	}
}

// files is all below the directories.
func (r *runtime) files(dirs ...string) map[string]string {
	r.b.t.Helper()
	all := map[string]string{}
	for _, dir := range dirs {
		err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
			if err != nil || info.IsDir() {
				return nil
			}
			b, err := os.ReadFile(path)
			all[path] = info.Mode().String() + string(b)
			return err
		})
		if err != nil {
			r.b.t.Fatal(err)
		}
	}
	return all
}

// Taken off the node, with an agent that runs or without one, nothing is left.
func TestUninstall(t *testing.T) {
	for _, running := range []bool{true, false} {
		t.Run(fmt.Sprintf("agent runs: %t", running), func(t *testing.T) {
			b := newBed(t)
			r := newRuntime(b)
			node := netnstest.New(t)
			dirs := []string{r.conf, r.bin, b.path("state")}
			before := r.files(dirs...)
			b.plane.namespace(t, "shop", true)
			b.plane.pod(t, "u1", true)
			b.plane.arrive()
			var cfg Config
			b.startWith(func(c *Config) {
				r.set(c)
				c.NetnsDir, c.HostProbes, c.host = b.path("none"), true, node
				cfg = *c
			})
			b.startProxy()
			netnstest.Eventually(t, "the plugin is installed", r.installed)
			p := b.newPod("u1")
			if _, err := r.add(p, "shop"); err != nil {
				t.Fatal(err)
			}
			rules := func() string {
				var n int
				err := node.Do(func() error {
					c, err := nftables.New()
					if err != nil {
						return err
					}
					tables, err := c.ListTables()
					n = len(tables)
					return err
				})
				return fmt.Sprint(n, err)
			}
			netnstest.Eventually(t, "the node's probes are let through", func() bool { return rules() == "1 <nil>" })
			open, via, err := p.connect()
			if err != nil || via != "ztunnel" {
				t.Fatal(via, err)
			}
			defer open.Close()
			if !running {
				b.stopAgent()
				if !r.installed() || p.state() != capture.Captured {
					t.Error("the end of the agent took something away")
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := Uninstall(ctx, cfg); err != nil {
				t.Fatal(err)
			}
			if state := p.state(); state != capture.Absent {
				t.Errorf("rules are %s", state)
			}
			p.wantVia("peer")
			if running {
				// Pods start, and the agent puts nothing back.
				b.newPod("u2").mustAdd()
				b.stopAgent()
			}
			if got := rules(); got != "0 <nil>" {
				t.Errorf("tables of the node: %s", got)
			}
			if after := r.files(dirs...); !maps.Equal(before, after) {
				t.Errorf("before %q\nafter %q", before, after)
			}
			if err := Uninstall(ctx, cfg); err != nil {
				t.Errorf("a second time: %v", err)
			}
		})
	}
}
