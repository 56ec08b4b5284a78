package l7

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a proxy that is measured.
type process struct {
	cmd *exec.Cmd
	out *os.File
}

// onCore runs start on one core, so that what it starts stays there.
func onCore(core int, start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	set.Set(core)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("core %d: %w", core, err)
	}
	defer func() { _ = unix.SchedSetaffinity(0, &before) }()
	return start()
}

// prefer gives everything that this process starts more or less of the processor
// than other sessions of the machine get (sched(7), autogroup); 0 is as much.
func prefer(nice int) error {
	if nice == 0 {
		return nil
	}
	return os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(nice)), 0o644)
}

// launch starts a program on a core.
func launch(ctx context.Context, core int, log, program string, args ...string) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	// A benchmark that is killed takes its proxies with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := onCore(core, cmd.Start); err != nil {
		_ = out.Close()
		return nil, err
	}
	return &process{cmd: cmd, out: out}, nil
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL) // nothing is left to be kept
	_ = p.cmd.Wait()
	_ = p.out.Close()
}

// tail of what the process said, for errors.
func (p *process) tail() string {
	text, _ := os.ReadFile(p.out.Name())
	return string(text[max(0, len(text)-2000):])
}

// cpu is the processor time of all its threads (proc_pid_stat(5), in ticks of
// 10 ms).
func (p *process) cpu() time.Duration {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond
}

// memory is what is resident, in KB.
func (p *process) memory() int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n
		}
	}
	return 0
}
