package process

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Reaper owns every child of this process, those that it started and those that
// were orphaned to it. Nothing else in the process may wait for children. The
// zero Reaper is ready for use.
type Reaper struct {
	mu       sync.Mutex
	children map[int]*Process // by pid, not yet reaped; guarded by mu
}

// Process is a child that Reaper started.
type Process struct {
	// Pid is the process id inside the sandbox.
	Pid int

	reaper *Reaper
	done   chan struct{}
	status syscall.WaitStatus // written before done is closed
}

// Run reaps until ctx ends.
func (r *Reaper) Run(ctx context.Context) error {
	wake := make(chan os.Signal, 1)
	signal.Notify(wake, syscall.SIGCHLD)
	defer signal.Stop(wake)
	for {
		r.reap()
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		}
	}
}

// reap collects everybody who has ended.
func (r *Reaper) reap() {
	for r.reapOne() {
	}
}

func (r *Reaper) reapOne() bool {
	// Start holds mu too, so that a child that ends at once is not reaped
	// before it is known.
	r.mu.Lock()
	defer r.mu.Unlock()
	var status syscall.WaitStatus
	pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
	if err == syscall.EINTR {
		return true
	}
	if err != nil || pid <= 0 {
		return false
	}
	if p, ok := r.children[pid]; ok {
		delete(r.children, pid)
		p.status = status
		close(p.done)
	}
	return true
}

func (r *Reaper) start(path string, argv []string, attr *syscall.ProcAttr) (*Process, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(path, argv, attr)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	p := &Process{Pid: pid, reaper: r, done: make(chan struct{})}
	if r.children == nil {
		r.children = make(map[int]*Process)
	}
	r.children[pid] = p
	return p, nil
}

// Done is closed when the process has ended and was reaped.
func (p *Process) Done() <-chan struct{} { return p.done }

// ExitCode gives the exit code, or 128 plus the signal that ended the process.
// It may be called once Done is closed.
func (p *Process) ExitCode() int {
	if p.status.Signaled() {
		return 128 + int(p.status.Signal())
	}
	return p.status.ExitStatus()
}

// Signaled gives the signal that ended the process, or 0. It may be called once
// Done is closed.
func (p *Process) Signaled() syscall.Signal {
	if p.status.Signaled() {
		return p.status.Signal()
	}
	return 0
}

// Signal sends a signal to the process alone. A process that has ended is left
// alone, whoever has its pid now.
func (p *Process) Signal(sig syscall.Signal) { p.signal(p.Pid, sig) }

// SignalGroup sends a signal to the process and to those of its children that
// stayed in its process group.
func (p *Process) SignalGroup(sig syscall.Signal) { p.signal(-p.Pid, sig) }

func (p *Process) signal(target int, sig syscall.Signal) {
	p.reaper.mu.Lock()
	defer p.reaper.mu.Unlock()
	if _, running := p.reaper.children[p.Pid]; running {
		// It may be a zombie by now, which is as good as delivered.
		_ = syscall.Kill(target, sig)
	}
}
