package pod

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/internal/local/process"
	"github.com/ambit-mesh/ambit/internal/local/wire"
)

// Pod is one pod on its node. Run makes it live.
type Pod struct {
	host *Host
	// dir is the working directory of containers that name none.
	dir     string
	changed func()
	log     *zap.Logger
	secrets *Secrets // nil for most

	// Written by prepare before any container starts.
	namespaces process.Namespaces
	port       *wire.Port // nil on the host network

	initial, sidecars, main []*container

	mu      sync.Mutex
	obj     *corev1.Pod // guarded by mu, without status
	network bool        // has addresses; guarded by mu
	closing bool        // is being dismantled; guarded by mu
	inited  bool        // init containers have run; guarded by mu
	waiting string      // what the pod waits for before its containers; guarded by mu
	phase   corev1.PodPhase
	started *metav1.Time
	// readySince is when Ready last changed; guarded by mu.
	ready      bool
	readySince metav1.Time
	grace      time.Duration // guarded by mu
}

// New makes a pod of an object that names its node. The function is called
// whenever the pod's status may have changed; it must not block.
func New(host *Host, obj *corev1.Pod, dir string, changed func()) *Pod {
	p := &Pod{
		host: host, obj: obj, dir: dir, changed: changed, phase: corev1.PodPending, readySince: obj.CreationTimestamp,
		log:   host.Log.With(zap.String("pod", obj.Namespace+"/"+obj.Name)),
		grace: 30 * time.Second,
	}
	if s := obj.Spec.TerminationGracePeriodSeconds; s != nil {
		p.grace = time.Duration(max(0, *s)) * time.Second
	}
	for i := range obj.Spec.InitContainers {
		c := newContainer(p, &obj.Spec.InitContainers[i])
		if c.isSidecar() {
			p.sidecars = append(p.sidecars, c)
		}
		p.initial = append(p.initial, c)
	}
	for i := range obj.Spec.Containers {
		p.main = append(p.main, newContainer(p, &obj.Spec.Containers[i]))
	}
	return p
}

// Retire marks the pod as going away: it gets no more traffic. Its programs
// still run.
func (p *Pod) Retire(now metav1.Time) {
	p.mu.Lock()
	if p.obj.DeletionTimestamp == nil {
		seconds := int64(p.grace.Seconds())
		p.obj.DeletionTimestamp, p.obj.DeletionGracePeriodSeconds = &now, &seconds
	}
	p.mu.Unlock()
	p.changed()
}

// LimitGrace shortens what is left for programs to end by themselves.
func (p *Pod) LimitGrace(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.grace = min(p.grace, d)
}

func (p *Pod) graceLeft() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.grace
}

// Update runs f on the pod's object, for changes that do not concern what runs.
func (p *Pod) Update(f func(*corev1.Pod) bool) {
	p.mu.Lock()
	changed := f(p.obj)
	p.mu.Unlock()
	if changed {
		p.changed()
	}
}

// set changes guarded fields and tells about it.
func (p *Pod) set(f func()) {
	p.mu.Lock()
	f()
	p.refresh()
	p.mu.Unlock()
	p.changed()
}

// LogFile gives the path of a container's output; of the first one when name is
// empty.
func (p *Pod) LogFile(name string) (string, error) {
	c, err := p.container(name)
	if err != nil {
		return "", err
	}
	return c.logFile(), nil
}

func (p *Pod) container(name string) (*container, error) {
	if name == "" {
		return p.main[0], nil
	}
	var names []string
	for _, list := range [][]*container{p.main, p.initial} {
		for _, c := range list {
			if c.spec.Name == name {
				return c, nil
			}
			names = append(names, c.spec.Name)
		}
	}
	return nil, fmt.Errorf("pod %s has no container %q: it has %v", p.obj.Name, name, names)
}

// Exec starts a program in the pod, beside the named container or the first one.
func (p *Pod) Exec(name string, argv, env []string, stdin, stdout, stderr *os.File) (*process.Process, error) {
	c, err := p.container(name)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	up := p.network && !p.closing
	p.mu.Unlock()
	if !up {
		return nil, fmt.Errorf("pod %s has no network at this time: see ambit local get pods", p.obj.Name)
	}
	cmd := c.command(argv)
	cmd.Env = append(cmd.Env, env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	return p.host.Reaper.Start(cmd)
}

// Netns gives the path of the pod's network namespace.
func (p *Pod) Netns() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !p.network:
		return ""
	case p.port == nil:
		return p.host.Node.NetnsPath
	default:
		return p.port.NetnsPath
	}
}

func (p *Pod) filesDir() string { return filepath.Join(p.host.Files, string(p.obj.UID)) }

// backoff gives 1, 2, 4 and so on up to 60 seconds, and waits.
type backoff struct{ next time.Duration }

func (b *backoff) wait(ctx context.Context) bool {
	if b.next == 0 {
		b.next = time.Second
	}
	timer := time.NewTimer(b.next)
	defer timer.Stop()
	b.next = min(2*b.next, time.Minute)
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (b *backoff) reset() { b.next = 0 }
