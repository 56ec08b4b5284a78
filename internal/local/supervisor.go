package local

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/internal/lifecycle"
	"github.com/ambit-mesh/ambit/internal/local/control"
	"github.com/ambit-mesh/ambit/internal/local/dns"
	"github.com/ambit-mesh/ambit/internal/local/overlay"
	"github.com/ambit-mesh/ambit/internal/local/pod"
	"github.com/ambit-mesh/ambit/internal/local/process"
	"github.com/ambit-mesh/ambit/internal/local/sandbox"
	"github.com/ambit-mesh/ambit/internal/local/service"
	"github.com/ambit-mesh/ambit/internal/local/system"
	"github.com/ambit-mesh/ambit/internal/local/vip"
	"github.com/ambit-mesh/ambit/internal/local/wire"
	"github.com/ambit-mesh/ambit/internal/local/workload"
	"github.com/ambit-mesh/ambit/internal/manifest"
)

// supervisor is what runs as pid 1 of the sandbox.
type supervisor struct {
	options Options
	inside  *sandbox.Inside
	files   meshFiles
	log     *zap.Logger
	journal *journal
	began   time.Time

	reaper      process.Reaper
	wire        *wire.Wire
	nodes       []*node
	dns         *dns.Server
	overlay     *overlay.Dir
	components  []*system.Component
	credentials *credentials

	wake chan struct{} // holds one wish to reconcile
	down chan struct{} // closed when the user asks for the end
	once sync.Once     // guards closing down

	// Owned by reconcile.
	allocator service.Allocator
	owners    map[manifest.Key]*workload.Owner // the last good ones
	seen      map[types.UID]lastSeen           // what the journal knows of pods

	pods sync.WaitGroup // one for each running pod

	mu          sync.Mutex
	objects     map[manifest.Key]manifest.Object // guarded by mu
	provisioned map[manifest.Key]manifest.Object // for waypoints; guarded by mu
	parsing     []manifest.Problem               // of the manifests; guarded by mu
	loaded      bool                             // the manifests were read once; guarded by mu
	members     map[types.UID]*member            // guarded by mu
	view        view                             // guarded by mu
	grace       time.Duration                    // for programs, when the mesh goes; guarded by mu
	stopping    bool                             // guarded by mu
}

// node is a node and what runs on it.
type node struct {
	wire *wire.Node
	host *pod.Host
	vip  *vip.Programmer
	// plain is the node without what manifests say, obj with that.
	plain, obj *corev1.Node
}

// view is what reconcile last found, for those who ask.
type view struct {
	ready    bool
	problems []manifest.Problem
	notes    []manifest.Problem
	objects  []manifest.Resource // generated ones, and user's as completed
}

// defaultGrace is what programs have to end by themselves when the mesh goes.
const defaultGrace = 3 * time.Second

func newSupervisor(o Options, in *sandbox.Inside, log *zap.Logger) (*supervisor, error) {
	s := &supervisor{
		options: o, inside: in, log: log, journal: newJournal(log), began: time.Now(), files: meshFiles{state: in.Path},
		wake: make(chan struct{}, 1), down: make(chan struct{}),
		owners: make(map[manifest.Key]*workload.Owner), seen: make(map[types.UID]lastSeen),
		objects: make(map[manifest.Key]manifest.Object), members: make(map[types.UID]*member), grace: defaultGrace,
	}
	var names []string
	for i := range o.Nodes {
		names = append(names, fmt.Sprintf("n%d", i+1))
	}
	if err := s.files.make(names); err != nil {
		return nil, err
	}
	s.credentials = newCredentials(s.files.credentials())
	if err := s.credentials.issueNodes(names, s.files.token); err != nil {
		return nil, err
	}
	if err := s.network(names); err != nil {
		return nil, err
	}
	var err error
	if s.overlay, err = overlay.Open(s.files.overlay()); err != nil {
		return nil, err
	}
	if o.Mesh {
		s.components = s.meshComponents()
	}
	return s, nil
}

// network builds the wire, the nodes and the name server.
func (s *supervisor) network(names []string) error {
	var err error
	if s.wire, err = wire.New(sandbox.NetnsDir); err != nil {
		return err
	}
	addrs := []netip.Addr{wire.DNS4}
	if s.wire.IPv6 {
		addrs = append(addrs, wire.DNS6)
	}
	if s.dns, err = dns.Listen(addrs...); err != nil {
		return err
	}
	s.allocator = service.Allocator{Block4: wire.Services4, Block6: wire.Services6, Reserved: []netip.Addr{wire.DNS4, wire.DNS6}, IPv6: s.wire.IPv6}
	for _, name := range names {
		w, err := s.wire.AddNode(name)
		if err != nil {
			return err
		}
		s.nodes = append(s.nodes, s.newNode(w, addrs))
	}
	return nil
}

func (s *supervisor) newNode(w *wire.Node, resolvers []netip.Addr) *node {
	n := &node{wire: w, vip: vip.NewProgrammer(w.Namespaces.Net), plain: nodeObject(w)}
	n.obj = n.plain
	n.host = &pod.Host{
		Node: w, Reaper: &s.reaper, Files: s.files.pods(), Logs: s.files.logs(),
		Hidden: []string{s.files.state, sandbox.SocketDir}, SearchPath: s.options.SearchPath, Domain: s.options.ClusterDomain,
		DNS: resolvers, Rootless: s.options.Rootless, Log: s.log,
	}
	if s.options.Mesh {
		n.host.Capturer = newAgent(s.files.cni(w.Name))
	}
	return n
}

// Run runs the mesh until ctx ends or the user asks for its end.
func (s *supervisor) Run(ctx context.Context) error {
	reaping, stopReaping := context.WithCancel(context.Background())
	var reaper sync.WaitGroup
	reaper.Go(func() { _ = s.reaper.Run(reaping) })
	defer reaper.Wait()
	defer stopReaping()

	watcher, err := manifest.NewWatcher(manifest.Config{Dirs: []string{s.options.Manifests}, Apply: s.apply})
	if err != nil {
		return err
	}
	server, err := control.Listen(s.inside.Path, (*backend)(s), s.log)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.down:
			cancel()
		case <-ctx.Done():
		}
	}()
	group := &lifecycle.Group{StopTimeout: time.Minute}
	group.Add("control socket", server)
	group.Add("DNS server", s.dns)
	for _, c := range s.components {
		group.Add(c.Status().Name, c)
	}
	group.Add("log keeper", lifecycle.RunnerFunc(s.trimLogs))
	group.Add("roots of waypoints", lifecycle.RunnerFunc(s.refreshRoots))
	group.Add("workloads", lifecycle.RunnerFunc(s.workloads))
	group.Add("manifests", watcher)
	s.inside.Up()
	s.journal.info("sandbox is up: %d nodes, manifests from %s", len(s.nodes), s.options.Manifests)
	err = group.Run(ctx)
	if err != nil {
		s.journal.add(control.Event{Level: "warn", Message: err.Error(), Fatal: true})
	}
	return err
}

// apply takes in a change of the manifests.
func (s *supervisor) apply(b manifest.Batch) {
	s.mu.Lock()
	for _, o := range b.Upserts {
		s.objects[o.Key()] = o
	}
	for _, k := range b.Deletes {
		delete(s.objects, k)
	}
	s.parsing, s.loaded = b.Problems, true
	s.mu.Unlock()
	s.kick()
}

// kick asks for a reconciliation soon.
func (s *supervisor) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// pause is the least time between two reconciliations, so that a burst of
// changes costs two of them.
const pause = 20 * time.Millisecond

// workloads reconciles until ctx ends, and then ends all pods.
func (s *supervisor) workloads(ctx context.Context) error {
	defer s.endPods()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		}
		s.reconcile()
		timer.Reset(pause)
	}
}

// endPods ends all pods at once and waits for them.
func (s *supervisor) endPods() {
	s.mu.Lock()
	s.stopping = true
	for _, m := range s.members {
		m.pod.LimitGrace(s.grace)
		m.cancel()
	}
	s.mu.Unlock()
	s.journal.info("ending all pods")
	s.pods.Wait()
}

// stop asks for the end of everything.
func (s *supervisor) stop(grace time.Duration) {
	s.mu.Lock()
	s.grace = grace
	s.mu.Unlock()
	s.once.Do(func() { close(s.down) })
}

// state gives the manifests as they are.
func (s *supervisor) state() (objects []manifest.Object, problems []manifest.Problem, loaded bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.objects {
		objects = append(objects, o)
	}
	return objects, append([]manifest.Problem(nil), s.parsing...), s.loaded
}

// trimLogs keeps output files from growing without bounds.
func (s *supervisor) trimLogs(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		entries, err := os.ReadDir(s.files.logs())
		if err != nil {
			s.log.Warn("logs cannot be trimmed", zap.Error(err))
			continue
		}
		for _, e := range entries {
			if err := trim(s.files.logs() + "/" + e.Name()); err != nil && !errors.Is(err, os.ErrNotExist) {
				s.log.Warn("log cannot be trimmed", zap.Error(err))
			}
		}
	}
}

// maxLog is how large an output file may become before its older half goes.
const maxLog = 16 << 20

// trim drops the older half of a file that is too large. Those who append to it
// go on at its new end.
func trim(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() < maxLog {
		return err
	}
	half := make([]byte, maxLog/2)
	n, err := f.ReadAt(half, info.Size()-int64(len(half)))
	if err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt(half[:n], 0)
	return err
}
