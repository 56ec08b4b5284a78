package zds_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/netns/netnstest"
	"github.com/ambit-mesh/ambit/internal/zds"
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

// proxy is a Handler that remembers. It closes what it is given.
type proxy struct {
	mu     sync.Mutex
	pods   map[string]netns.ID // guarded by mu
	infos  map[string]zds.Workload
	log    []string
	refuse map[string]int // how often an addition is still refused
	hang   chan struct{}  // Add waits for it, if set
}

func newProxy() *proxy {
	return &proxy{pods: map[string]netns.ID{}, infos: map[string]zds.Workload{}, refuse: map[string]int{}}
}

func (p *proxy) Add(_ context.Context, uid string, w zds.Workload, ns *netns.Namespace) error {
	defer ns.Close()
	if p.hang != nil {
		<-p.hang
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, "add "+uid)
	if p.refuse[uid] > 0 {
		p.refuse[uid]--
		return errors.New("listen: address in use")
	}
	p.pods[uid], p.infos[uid] = ns.ID(), w
	return nil
}

func (p *proxy) Keep(_ context.Context, uid string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, "keep "+uid)
	return nil
}

func (p *proxy) Del(_ context.Context, uid string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, "del "+uid)
	delete(p.pods, uid)
	return nil
}

func (p *proxy) Retain(_ context.Context, named map[string]struct{}) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, fmt.Sprintf("retain %d", len(named)))
	for uid := range p.pods {
		if _, ok := named[uid]; !ok {
			delete(p.pods, uid)
		}
	}
	return nil
}

func (p *proxy) has(uid string, ns *netns.Namespace) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	id, ok := p.pods[uid]
	return ok && id == ns.ID()
}

func (p *proxy) lacks(uid string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.pods[uid]
	return !ok
}

func (p *proxy) logged() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.log)
}

// running is something with a Run method under test.
type running struct {
	cancel context.CancelFunc
	done   chan error
}

func start(t *testing.T, run func(context.Context) error) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- run(ctx) }()
	t.Cleanup(func() { r.stop(t) })
	return r
}

func (r *running) stop(t *testing.T) {
	t.Helper()
	if r.cancel == nil {
		return
	}
	r.cancel()
	r.cancel = nil
	select {
	case err := <-r.done:
		if err != nil {
			t.Errorf("Run = %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("Run did not end")
	}
}

type results struct {
	mu  sync.Mutex
	all []zds.Result // guarded by mu
}

func (r *results) add(x zds.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, x)
}

func (r *results) count(uid string, ok bool) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, x := range r.all {
		if x.UID == uid && (x.Err == nil) == ok {
			n++
		}
	}
	return n
}

func newServer(t *testing.T, path string) (*zds.Server, *results) {
	t.Helper()
	return newServerAfter(t, path, time.Millisecond)
}

// newServerAfter is newServer with a wait for ztunnels that serve pods already.
func newServerAfter(t *testing.T, path string, wait time.Duration) (*zds.Server, *results) {
	t.Helper()
	r := &results{}
	s, err := zds.NewServer(zds.ServerConfig{Path: path, OnResult: r.add, RetryMin: 10 * time.Millisecond, RetryMax: 50 * time.Millisecond, ReturnTime: wait})
	if err != nil {
		t.Fatal(err)
	}
	return s, r
}

func newClient(t *testing.T, path string, h zds.Handler) *zds.Client {
	t.Helper()
	c, err := zds.NewClient(zds.ClientConfig{Path: path, Handler: h, BackoffMin: 5 * time.Millisecond, BackoffMax: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func set(t *testing.T, s *zds.Server, uid string, ns *netns.Namespace) {
	t.Helper()
	if err := s.Set(uid, zds.Workload{Name: "app-" + uid, Namespace: "shop", ServiceAccount: "app"}, ns); err != nil {
		t.Fatal(err)
	}
}

func TestSnapshotThenChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zds.sock")
	server, results := newServer(t, path)
	a, b := netnstest.New(t), netnstest.New(t)
	set(t, server, "a", a)
	start(t, server.Run)
	p := newProxy()
	client := newClient(t, path, p)
	start(t, client.Run)

	<-client.Synced()
	if got := p.logged(); !slices.Equal(got, []string{"add a", "retain 1"}) {
		t.Errorf("snapshot was %v", got)
	}
	if !p.has("a", a) || p.infos["a"] != (zds.Workload{Name: "app-a", Namespace: "shop", ServiceAccount: "app"}) {
		t.Errorf("a is %v", p.infos["a"])
	}
	set(t, server, "b", b)
	netnstest.Eventually(t, "b is there", func() bool { return p.has("b", b) && results.count("b", true) == 1 })
	set(t, server, "b", a)
	netnstest.Eventually(t, "b has another namespace", func() bool { return p.has("b", a) })
	server.Remove("a")
	server.Remove("never there")
	netnstest.Eventually(t, "a is gone", func() bool { return p.lacks("a") })
}

func TestReconnectsBothWays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zds.sock")
	ns := netnstest.New(t)
	p := newProxy()
	client := newClient(t, path, p)
	start(t, client.Run) // nobody listens yet

	first, _ := newServer(t, path)
	run := start(t, first.Run)
	set(t, first, "a", ns)
	set(t, first, "b", ns)
	netnstest.Eventually(t, "both are there", func() bool { return p.has("a", ns) && p.has("b", ns) })
	run.stop(t)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket left behind: %v", err)
	}
	if !p.has("a", ns) || !p.has("b", ns) {
		t.Error("pods lost with the agent")
	}

	// The next agent knows of a without its namespace, and of b no more.
	second, results := newServer(t, path)
	set(t, second, "a", nil)
	start(t, second.Run)
	netnstest.Eventually(t, "b is gone", func() bool { return p.lacks("b") })
	if !p.has("a", ns) || !slices.Contains(p.logged(), "keep a") || results.count("a", true) != 1 {
		t.Errorf("a was not kept: %v", p.logged())
	}
}

func TestRefusedAdditionIsTriedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zds.sock")
	server, results := newServer(t, path)
	start(t, server.Run)
	ns := netnstest.New(t)
	p := newProxy()
	p.refuse["a"] = 3
	start(t, newClient(t, path, p).Run)
	set(t, server, "a", ns)
	set(t, server, "b", ns)
	netnstest.Eventually(t, "a is taken at last", func() bool { return p.has("a", ns) && results.count("a", true) == 1 })
	if n := results.count("a", false); n != 3 {
		t.Errorf("%d failures reported, want 3", n)
	}
	if !p.has("b", ns) {
		t.Error("b had to wait for a")
	}
	// One that is removed is tried no more.
	p.mu.Lock()
	p.refuse["c"] = 1 << 30
	p.mu.Unlock()
	set(t, server, "c", ns)
	netnstest.Eventually(t, "c fails", func() bool { return results.count("c", false) > 1 })
	server.Remove("c")
	netnstest.Eventually(t, "c is removed", func() bool { return slices.Contains(p.logged(), "del c") })
	n := results.count("c", false)
	<-time.After(100 * time.Millisecond)
	if now := results.count("c", false); now > n+1 {
		t.Errorf("still tried: %d, then %d", n, now)
	}
}

func TestTwoProxiesDuringAnUpgrade(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zds.sock")
	server, _ := newServer(t, path)
	start(t, server.Run)
	ns := netnstest.New(t)
	set(t, server, "a", ns)
	old, next := newProxy(), newProxy()
	oldClient := newClient(t, path, old)
	start(t, oldClient.Run)
	<-oldClient.Synced()
	nextClient := newClient(t, path, next)
	run := start(t, nextClient.Run)
	<-nextClient.Synced()

	if server.Connections() != 2 || !next.has("a", ns) {
		t.Fatal("the new proxy has no snapshot")
	}
	set(t, server, "b", ns)
	netnstest.Eventually(t, "the newest has b", func() bool { return next.has("b", ns) })
	if !old.lacks("b") {
		t.Error("b went to the old one too")
	}
	server.Remove("a")
	netnstest.Eventually(t, "a is gone from both", func() bool { return old.lacks("a") && next.lacks("a") })

	// The upgrade is rolled back: the old one learns what it missed.
	run.stop(t)
	netnstest.Eventually(t, "the old one has b", func() bool { return old.has("b", ns) })
}

func TestSetRefusesWhatFitsNoPacket(t *testing.T) {
	server, _ := newServer(t, filepath.Join(t.TempDir(), "zds.sock"))
	ns := netnstest.New(t)
	if err := server.Set("", zds.Workload{}, ns); err == nil {
		t.Error("empty uid: want an error")
	}
	long := make([]byte, zds.MaxPacket)
	for i := range long {
		long[i] = 'x'
	}
	if err := server.Set("a", zds.Workload{Name: string(long)}, ns); err == nil {
		t.Error("long name: want an error")
	}
}

// A namespace that its owner closes while ztunnel is away must not break the
// connection for the other pods.
func TestClosedNamespaceIsPassedOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zds.sock")
	server, _ := newServer(t, path)
	gone, ns := netnstest.New(t), netnstest.New(t)
	set(t, server, "gone", gone)
	set(t, server, "a", ns)
	gone.Close()
	start(t, server.Run)
	p := newProxy()
	client := newClient(t, path, p)
	start(t, client.Run)
	<-client.Synced()
	if !p.has("a", ns) || !p.lacks("gone") {
		t.Errorf("got %v", p.logged())
	}
}

func TestSuccessorTakesTheSocketOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zds.sock")
	first, _ := newServer(t, path)
	run := start(t, first.Run)
	netnstest.Eventually(t, "the socket is there", func() bool { _, err := os.Stat(path); return err == nil })
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	second, _ := newServer(t, path)
	start(t, second.Run)
	netnstest.Eventually(t, "the socket is the second's", func() bool {
		now, err := os.Stat(path)
		return err == nil && !os.SameFile(before, now)
	})
	run.stop(t)
	client := newClient(t, path, newProxy())
	start(t, client.Run)
	<-client.Synced()
	if second.Connections() != 1 {
		t.Error("the first removed the second's socket")
	}
}

func TestListenRefusesAFileInTheWay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zds.sock")
	if err := os.WriteFile(path, []byte("keep me"), 0o600); err != nil {
		t.Fatal(err)
	}
	server, _ := newServer(t, path)
	if err := server.Run(t.Context()); err == nil {
		t.Error("want an error")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "keep me" {
		t.Errorf("file was touched: %q, %v", b, err)
	}
}
