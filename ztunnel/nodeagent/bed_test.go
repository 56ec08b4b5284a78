package nodeagent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/netns/netnstest"
	"github.com/ambit-mesh/ambit/internal/zds"
	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/capture"
)

func TestMain(m *testing.M) {
	os.Exit(netnstest.Main(func() int {
		code := m.Run()
		if err := goleak.Find(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		return code
	}))
}

// bed is a node: an agent, its control plane, its ztunnel, and pods.
type bed struct {
	t        *testing.T
	dir      string
	plane    *fakePlane
	proxy    *fakeProxy
	peer     *netns.Namespace
	capturer *capture.Capturer
	pods     int
	// of the running agent
	agent     *Agent
	stopAgent func()
}

func newBed(t *testing.T) *bed {
	t.Helper()
	c, err := capture.New()
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, dir: t.TempDir(), plane: newPlane(t), peer: netnstest.New(t), capturer: c}
	b.serve(b.peer, 80)
	t.Cleanup(func() {
		if b.stopAgent != nil {
			b.stopAgent()
		}
	})
	return b
}

func (b *bed) path(name string) string { return filepath.Join(b.dir, name) }

// start runs an agent on the bed's directory.
func (b *bed) start() {
	b.t.Helper()
	b.startWith(func(*Config) {})
}

// startWith runs one with other settings.
func (b *bed) startWith(set func(*Config)) {
	b.t.Helper()
	cfg := Config{
		Node: "n1", ZDSSocket: b.path("zds.sock"), CNISocket: b.path("cni.sock"), StateDir: b.path("state"),
		AdminAddress: "127.0.0.1:0", MetricsAddress: "127.0.0.1:0", ReadyAddress: "127.0.0.1:0",
		StartTimeout: 2 * time.Second, DrainTimeout: time.Minute, RepairInterval: 100 * time.Millisecond,
		Log:       zaptest.NewLogger(b.t, zaptest.Level(zap.ErrorLevel)),
		drainPoll: 20 * time.Millisecond, unenrolled: time.Second,
	}
	set(&cfg)
	agent, err := newAgent(cfg, b.plane.dial(b.t))
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- agent.Run(ctx) }()
	b.agent = agent
	b.stopAgent = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("Run = %v", err)
		}
	})
	netnstest.Eventually(b.t, "the CNI socket is there", func() bool {
		c, err := net.Dial("unix", b.path("cni.sock"))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// startProxy connects a ztunnel.
func (b *bed) startProxy() {
	b.t.Helper()
	b.proxy = &fakeProxy{pods: map[string]*proxied{}}
	client, err := zds.NewClient(zds.ClientConfig{Path: b.path("zds.sock"), Handler: b.proxy, BackoffMin: time.Millisecond, BackoffMax: 20 * time.Millisecond})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	b.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("zds client: %v", err)
		}
		b.proxy.close()
	})
}

// serve answers connections to a port with "peer" and echoes.
func (b *bed) serve(ns *netns.Namespace, port uint16) {
	b.t.Helper()
	l, err := netns.Listen(ns, "tcp", netip.AddrPortFrom(netip.IPv6Unspecified(), port), netns.ListenOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	b.t.Cleanup(func() { l.Close(); cancel(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.AcceptConn()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { c.Close() })
			wg.Go(func() {
				defer c.Close()
				fmt.Fprintln(c, "peer")
				_, _ = io.Copy(c, c)
			})
		}
	})
}

// testPod is a pod: a process that keeps a namespace, joined to the peer.
type testPod struct {
	bed  *bed
	uid  string
	path string
	ns   *netns.Namespace
	kill func()
}

func (b *bed) newPod(uid string) *testPod {
	b.t.Helper()
	cmd := exec.Command("cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	p := &testPod{bed: b, uid: uid, path: fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid)}
	p.kill = sync.OnceFunc(func() { in.Close(); _ = cmd.Wait() })
	b.t.Cleanup(p.kill)
	if p.ns, err = netns.Open(p.path); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = p.ns.Close() })
	netnstest.Up(b.t, p.ns, "lo")
	b.pods++
	prefix := func(last int) []netip.Prefix {
		return []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.%d.0.%d/24", b.pods, last))}
	}
	netnstest.Veth(b.t,
		netnstest.End{NS: p.ns, Link: "eth0", Addrs: prefix(2), Gateways: []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.%d.0.1", b.pods))}},
		netnstest.End{NS: b.peer, Link: fmt.Sprintf("veth%d", b.pods), Addrs: prefix(1)})
	return p
}

// peerAddr is where the pod reaches the peer's server.
func (p *testPod) peerAddr() netip.AddrPort {
	return netip.MustParseAddrPort(fmt.Sprintf("10.%d.0.1:80", p.bed.pods))
}

func (p *testPod) state() capture.State {
	p.bed.t.Helper()
	s, err := p.bed.capturer.Inspect(p.ns)
	if err != nil {
		p.bed.t.Fatal(err)
	}
	return s
}

// connect opens a connection from the pod and says who answered: the peer itself,
// or ztunnel on the way.
func (p *testPod) connect() (*netns.Conn, string, error) {
	c, err := netns.Dial(p.bed.t.Context(), p.ns, netns.DialOptions{Timeout: 5 * time.Second}, p.peerAddr())
	if err != nil {
		return nil, "", err
	}
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	line, err := bufio.NewReaderSize(c, 16).ReadString('\n')
	if err != nil {
		c.Close()
		return nil, "", err
	}
	return c, strings.TrimSpace(line), nil
}

func (p *testPod) wantVia(want string) {
	p.bed.t.Helper()
	c, via, err := p.connect()
	if err != nil {
		p.bed.t.Errorf("connect: %v", err)
		return
	}
	c.Close()
	if via != want {
		p.bed.t.Errorf("connection goes to %s, want %s", via, want)
	}
}

// add is the CNI plugin's request for the pod.
func (p *testPod) add() (status int, problem string) {
	p.bed.t.Helper()
	return p.bed.post("/cmdadd", map[string]any{
		"netns": p.path, "podName": "app-" + p.uid, "podNamespace": "shop", "podUID": p.uid, "ips": []string{"10.0.0.1"},
	})
}

func (p *testPod) mustAdd() {
	p.bed.t.Helper()
	if status, problem := p.add(); status != http.StatusOK {
		p.bed.t.Fatalf("cmdadd: %d %s", status, problem)
	}
}

func (b *bed) post(path string, body any) (status int, problem string) {
	b.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		b.t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", b.path("cni.sock"))
	}}}
	resp, err := client.Post("http://agent"+path, "application/json", bytes.NewReader(raw))
	if err != nil {
		b.t.Error(err)
		return 0, ""
	}
	defer resp.Body.Close()
	var answer struct{ Error string }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		b.t.Error(err)
	}
	return resp.StatusCode, answer.Error
}

// fakeProxy is a ztunnel that passes everything on: "ztunnel" instead of the
// peer's greeting tells the way.
type fakeProxy struct {
	mu     sync.Mutex
	pods   map[string]*proxied
	ever   []*proxied    // dropped ones too, whose connections go on
	refuse error         // what Add answers, if set
	hold   chan struct{} // Add waits for it, if set
}

type proxied struct {
	id     netns.ID
	info   zds.Workload
	ns     *netns.Namespace
	l      *netns.Listener
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func (f *fakeProxy) Add(ctx context.Context, uid string, w zds.Workload, ns *netns.Namespace) error {
	f.mu.Lock()
	hold, refuse, have := f.hold, f.refuse, f.pods[uid]
	f.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
		}
	}
	if refuse != nil {
		_ = ns.Close()
		return refuse
	}
	if have != nil && have.id == ns.ID() {
		return ns.Close()
	}
	l, err := netns.Listen(ns, "tcp", netip.MustParseAddrPort("[::]:15001"), netns.ListenOptions{ReusePort: true})
	if err != nil {
		return errors.Join(err, ns.Close())
	}
	pctx, cancel := context.WithCancel(context.Background())
	p := &proxied{id: ns.ID(), info: w, ns: ns, l: l, cancel: cancel}
	p.wg.Go(func() { p.run(pctx) })
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dropLocked(uid)
	f.pods[uid] = p
	f.ever = append(f.ever, p)
	return nil
}

// run serves until the listener is closed; connections go on until cancel.
func (p *proxied) run(ctx context.Context) {
	for {
		c, err := p.l.AcceptConn()
		if err != nil {
			return
		}
		p.wg.Go(func() {
			defer c.Close()
			dst, err := netns.OriginalDst(c)
			if err != nil {
				return
			}
			up, err := netns.Dial(ctx, p.ns, netns.DialOptions{Mark: capture.ProxyMark, Timeout: 5 * time.Second}, dst)
			if err != nil {
				return
			}
			defer up.Close()
			stop := context.AfterFunc(ctx, func() { c.Close(); up.Close() })
			defer stop()
			if _, err := bufio.NewReaderSize(up, 16).ReadString('\n'); err != nil {
				return
			}
			fmt.Fprintln(c, "ztunnel")
			go func() { _, _ = io.Copy(up, c); _ = up.CloseWrite() }()
			_, _ = io.Copy(c, up)
		})
	}
}

func (f *fakeProxy) Keep(context.Context, string) error { return nil }

func (f *fakeProxy) Del(_ context.Context, uid string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dropLocked(uid)
	return nil
}

func (f *fakeProxy) dropLocked(uid string) {
	if p := f.pods[uid]; p != nil {
		p.l.Close()
		delete(f.pods, uid)
	}
}

func (f *fakeProxy) Retain(_ context.Context, named map[string]struct{}) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for uid := range f.pods {
		if _, ok := named[uid]; !ok {
			f.dropLocked(uid)
		}
	}
	return nil
}

func (f *fakeProxy) has(uid string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pods[uid] != nil
}

// info is what ztunnel was told about a pod that it has.
func (f *fakeProxy) info(uid string) zds.Workload {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pods[uid].info
}

func (f *fakeProxy) set(refuse error, hold chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse, f.hold = refuse, hold
}

func (f *fakeProxy) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.ever {
		p.l.Close()
		p.cancel()
		p.wg.Wait()
		_ = p.ns.Close()
	}
}
