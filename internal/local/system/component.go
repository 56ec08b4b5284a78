package system

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/local/process"
)

// Config describes a process.
type Config struct {
	// Name is how the user calls it, such as n1/ztunnel.
	Name string
	Argv []string
	Env  []string
	// Log is the file that its output is appended to.
	Log string
	// Namespaces has Net set for a node's processes.
	Namespaces process.Namespaces
	// ReadyPort is asked for /healthz/ready on loopback.
	ReadyPort int
	// Before must succeed before each start; it may wait for something until its
	// context ends. It may be nil.
	Before func(context.Context) error
	// Changed is called when the status may have changed; it must not block.
	Changed func()
	// Grace is how long the process may take to end by itself.
	Grace time.Duration
	// Successor says that another process may be started while this one, told to
	// stop, lets its connections come to their end, however long that takes. It lets
	// go of its readiness port at once.
	Successor bool

	Reaper *process.Reaper
	Logger *zap.Logger
}

// Component is a process that is kept running.
type Component struct {
	cfg     Config
	restart chan syscall.Signal
	starts  int // owned by Run

	draining sync.WaitGroup // processes that have a successor

	mu     sync.Mutex
	status Status // guarded by mu
}

// Status is how a component is.
type Status struct {
	Name     string    `json:"name"`
	Pid      int       `json:"pid"` // 0 while it does not run
	Started  time.Time `json:"started,omitzero"`
	Restarts int       `json:"restarts"`
	Ready    bool      `json:"ready"`
	// Message says why it is not ready.
	Message string `json:"message,omitempty"`
	Log     string `json:"log"`
	// Draining counts the processes before this one that still have connections.
	Draining int `json:"draining,omitempty"`
}

// New makes a component; Run starts it.
func New(cfg Config) *Component {
	return &Component{
		cfg: cfg, restart: make(chan syscall.Signal, 1),
		status: Status{Name: cfg.Name, Log: cfg.Log, Message: "not started yet"},
	}
}

// Status gives how the component is now.
func (c *Component) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// Restart ends the process by a signal; it is started again at once.
func (c *Component) Restart(sig syscall.Signal) error {
	if c.Status().Pid == 0 {
		return fmt.Errorf("%s does not run at this time: %s", c.cfg.Name, c.Status().Message)
	}
	select {
	case c.restart <- sig:
	default: // one is on its way
	}
	return nil
}

func (c *Component) set(f func(*Status)) {
	c.mu.Lock()
	before := c.status
	f(&c.status)
	changed := before != c.status
	c.mu.Unlock()
	if changed {
		c.cfg.Changed()
	}
}

// settled is how long a process has to run for its next restart to be a first.
const settled = 30 * time.Second

// Run keeps the process running until ctx ends, and then ends it.
func (c *Component) Run(ctx context.Context) error {
	defer c.draining.Wait()
	delay := time.Duration(0)
	for ctx.Err() == nil {
		begin := time.Now()
		message, asked := c.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		c.cfg.Logger.Warn("component ended", zap.String("component", c.cfg.Name), zap.String("reason", message))
		switch {
		case asked || time.Since(begin) > settled:
			delay = 0
		default:
			delay = min(max(2*delay, 500*time.Millisecond), 15*time.Second)
		}
		c.set(func(s *Status) {
			s.Pid, s.Ready, s.Message = 0, false, message
			s.Started = time.Time{}
		})
		timer := time.NewTimer(delay)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// once starts the process and waits for its end, and says why it ended and
// whether somebody asked for that.
func (c *Component) once(ctx context.Context) (message string, asked bool) {
	proc, err := c.start(ctx)
	if err != nil {
		return err.Error(), false
	}
	c.set(func(s *Status) {
		s.Restarts = c.starts
		s.Pid, s.Started, s.Ready, s.Message = proc.Pid, time.Now(), false, "starting"
	})
	c.starts++
	watch, stopWatch := context.WithCancel(ctx)
	var wg sync.WaitGroup
	letGo := make(chan struct{})
	wg.Go(func() {
		if c.watchReady(watch) {
			close(letGo)
		}
	})
	defer wg.Wait()
	defer stopWatch()
	select {
	case <-letGo:
		// Somebody else told it to stop.
		c.drain(ctx, proc)
		return "stops, and lets its connections come to their end", true
	case <-proc.Done():
	case sig := <-c.restart:
		proc.Signal(sig)
		asked = true
		if c.cfg.Successor && sig == syscall.SIGTERM {
			c.drain(ctx, proc)
			return "was told to stop, and lets its connections come to their end", true
		}
		c.end(proc, restartGrace)
	case <-ctx.Done():
		proc.Signal(syscall.SIGTERM)
		c.end(proc, c.cfg.Grace)
	}
	process.KillGroup(proc.Pid)
	if sig := proc.Signaled(); sig != 0 {
		return "ended by " + sig.String(), asked
	}
	return fmt.Sprintf("ended with exit code %d: see its log", proc.ExitCode()), asked
}

// restartGrace is what a process has to end by itself when it is restarted.
const restartGrace = 35 * time.Second

// drain waits for a process that has been told to stop, beside its successor.
func (c *Component) drain(ctx context.Context, proc *process.Process) {
	c.set(func(s *Status) { s.Draining++ })
	c.draining.Go(func() {
		select {
		case <-proc.Done():
		case <-ctx.Done():
			c.end(proc, c.cfg.Grace)
		}
		process.KillGroup(proc.Pid)
		c.set(func(s *Status) { s.Draining-- })
		c.cfg.Logger.Info("component that was told to stop has ended", zap.String("component", c.cfg.Name), zap.Int("pid", proc.Pid))
	})
}

func (c *Component) end(proc *process.Process, grace time.Duration) {
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-proc.Done():
	case <-timer.C:
		proc.SignalGroup(syscall.SIGKILL)
		<-proc.Done()
	}
}

func (c *Component) start(ctx context.Context) (*process.Process, error) {
	if c.cfg.Before != nil {
		if err := c.cfg.Before(ctx); err != nil {
			return nil, err
		}
	}
	out, err := os.OpenFile(c.cfg.Log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log file: %w", err)
	}
	defer out.Close()
	return c.cfg.Reaper.Start(process.Command{
		Argv: c.cfg.Argv, Env: c.cfg.Env, Stdout: out, Stderr: out, Namespaces: c.cfg.Namespaces,
	})
}
