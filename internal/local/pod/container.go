package pod

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/internal/local/process"
)

// container is one program of a pod, started again and again.
type container struct {
	pod  *Pod
	spec *corev1.Container
	// up is closed when the container has started for the first time.
	up chan struct{}

	// Guarded by pod.mu.
	pid      int // 0 while it does not run
	state    corev1.ContainerState
	last     corev1.ContainerState
	restarts int32
	started  bool // past its startup probe
	healthy  bool // by its readiness probe
	wasUp    bool
}

func newContainer(p *Pod, spec *corev1.Container) *container {
	return &container{
		pod: p, spec: spec, up: make(chan struct{}),
		state: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}},
	}
}

func (c *container) isSidecar() bool {
	return c.spec.RestartPolicy != nil && *c.spec.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func (c *container) logFile() string {
	o := c.pod.obj
	return filepath.Join(c.pod.host.Logs, fmt.Sprintf("%s_%s_%s.log", o.Namespace, o.Name, c.spec.Name))
}

func (c *container) removeLog() error {
	if err := os.Remove(c.logFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// expanded gives argv as a program of this container, with variables replaced
// as in the manifest's command and args.
func (c *container) expanded(argv []string) process.Command {
	_, lookup := c.pod.environment(c.spec)
	words := make([]string, len(argv))
	for i, a := range argv {
		words[i] = expand(a, lookup)
	}
	return c.command(words)
}

// command gives argv as a program of this container, without its output.
func (c *container) command(argv []string) process.Command {
	p := c.pod
	env, _ := p.environment(c.spec)
	cmd := process.Command{Argv: argv, Env: env, Dir: c.spec.WorkingDir, Namespaces: p.namespaces}
	if !filepath.IsAbs(cmd.Dir) {
		cmd.Dir = filepath.Join(p.dir, cmd.Dir)
	}
	if p.host.Rootless {
		return cmd
	}
	if s := p.obj.Spec.SecurityContext; s != nil {
		cmd.User, cmd.Group = s.RunAsUser, s.RunAsGroup
	}
	if s := c.spec.SecurityContext; s != nil {
		if s.RunAsUser != nil {
			cmd.User = s.RunAsUser
		}
		if s.RunAsGroup != nil {
			cmd.Group = s.RunAsGroup
		}
	}
	return cmd
}

// settled is how long a program has to run for its next restart to be a first.
const settled = time.Minute

// loop runs the program until ctx ends or the policy says that it is done, and
// gives its last exit code.
func (c *container) loop(ctx context.Context, policy corev1.RestartPolicy) int {
	var b backoff
	for {
		begin := time.Now()
		code, err := c.once(ctx)
		if ctx.Err() != nil {
			return code
		}
		if err == nil && (policy == corev1.RestartPolicyNever || policy == corev1.RestartPolicyOnFailure && code == 0) {
			return code
		}
		if time.Since(begin) > settled {
			b.reset()
		}
		c.pod.set(func() {
			if err != nil {
				c.state = waiting("StartError", err.Error())
			} else {
				c.state = waiting("CrashLoopBackOff", fmt.Sprintf("ended with exit code %d, starts again in %s", code, max(b.next, time.Second)))
			}
		})
		if !b.wait(ctx) {
			return code
		}
		c.pod.set(func() { c.restarts++ })
	}
}

func waiting(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

// once starts the program and waits for its end. When ctx ends, or a probe gives
// the program up, it is made to end.
func (c *container) once(ctx context.Context) (int, error) {
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	proc, err := c.start()
	if err != nil {
		c.pod.log.Warn("container does not start", zap.String("container", c.spec.Name), zap.Error(err))
		return 0, err
	}
	begin := metav1.Now()
	c.pod.set(func() {
		c.pid = proc.Pid
		c.state = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: begin}}
		c.started, c.healthy = c.spec.StartupProbe == nil, false
		c.noteStarted()
	})
	probes, stopProbes := context.WithCancel(ctx)
	unhealthy := make(chan string, 1)
	probing := c.probe(probes, unhealthy)
	reason := c.await(ctx, proc, unhealthy)
	stopProbes()
	probing.Wait()
	process.KillGroup(proc.Pid)
	code := proc.ExitCode()
	c.pod.set(func() { c.ended(begin, code, int32(proc.Signaled()), reason) })
	return code, nil
}

// noteStarted lets those go on who wait for this container. pod.mu is held.
func (c *container) noteStarted() {
	if c.started && !c.wasUp {
		c.wasUp = true
		close(c.up)
	}
}

func (c *container) awaitStarted(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-c.up:
		return true
	}
}

// ended records an end. pod.mu is held.
func (c *container) ended(begin metav1.Time, code int, signal int32, reason string) {
	if reason == "" {
		reason = "Completed"
		if code != 0 {
			reason = "Error"
		}
	}
	c.state = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: int32(code), Signal: signal, Reason: reason, StartedAt: begin, FinishedAt: metav1.Now(),
	}}
	c.last = c.state
	c.pid, c.started, c.healthy = 0, false, false
}

func (c *container) start() (*process.Process, error) {
	out, err := os.OpenFile(c.logFile(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log file: %w", err)
	}
	defer out.Close()
	cmd := c.expanded(append(append([]string(nil), c.spec.Command...), c.spec.Args...))
	cmd.Stdout, cmd.Stderr = out, out
	return c.pod.host.Reaper.Start(cmd)
}

// await waits for the program's end, and asks for it when it is time.
func (c *container) await(ctx context.Context, proc *process.Process, unhealthy <-chan string) (reason string) {
	select {
	case <-proc.Done():
		return ""
	case <-ctx.Done():
	case reason = <-unhealthy:
		c.pod.log.Warn("container is given up", zap.String("container", c.spec.Name), zap.String("reason", reason))
	}
	proc.Signal(syscall.SIGTERM)
	timer := time.NewTimer(c.pod.graceLeft())
	defer timer.Stop()
	select {
	case <-proc.Done():
		return reason
	case <-timer.C:
	}
	proc.SignalGroup(syscall.SIGKILL)
	<-proc.Done()
	return reason
}
