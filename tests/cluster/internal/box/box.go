// Package box runs a program as the first process of namespaces of its own and ends everything in them by that process.
// The kernel kills all processes of a pid namespace with its first one, so that nothing can be left behind, whatever the
// programs in it have started.
package box

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Box is a set of namespaces, known by a folder that has the file pid.
type Box struct {
	Name, Dir string
}

// ErrAbsent says that nothing runs in the box.
var ErrAbsent = errors.New("not running")

// Start runs a command in new net, mount, pid and uts namespaces. It is told on file descriptor 3 when to go on, and says on
// descriptor 4 when it has come so far; Start returns then, and release lets the command go on. Its output goes to
// dir/init.log.
func (b *Box) Start(args ...string) (release func() error, err error) {
	log, err := os.Create(filepath.Join(b.Dir, "init.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	goOn, letGo, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer goOn.Close()
	ready, isReady, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	cmd := exec.Command(args[0], args[1:]...) //nolint:noctx // it outlives its caller
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{goOn, isReady}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS, Setsid: true}
	err = cmd.Start()
	isReady.Close()
	if err != nil {
		return nil, fmt.Errorf("%s: namespaces: %w (it needs root)", b.Name, err)
	}
	if err := b.remember(cmd.Process.Pid); err != nil {
		return nil, errors.Join(err, cmd.Process.Kill())
	}
	if n, _ := ready.Read(make([]byte, 1)); n == 0 {
		text, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("%s ended before it was ready: %s", b.Name, bytes.TrimSpace(text))
	}
	return func() error {
		_, err := letGo.Write([]byte{1})
		return errors.Join(err, letGo.Close(), cmd.Process.Release())
	}, nil
}

// remember writes the pid and when the process was started, so that another process that gets the same pid later is not
// taken for it.
func (b *Box) remember(pid int) error {
	at, err := started(pid)
	if err != nil {
		return err
	}
	return os.WriteFile(b.file(), fmt.Appendf(nil, "%d %s", pid, at), 0o644)
}

func (b *Box) file() string { return filepath.Join(b.Dir, "pid") }

// Pid is the first process of the box.
func (b *Box) Pid() (int, error) {
	text, err := os.ReadFile(b.file())
	if errors.Is(err, os.ErrNotExist) {
		return 0, ErrAbsent
	}
	if err != nil {
		return 0, err
	}
	number, at, _ := strings.Cut(string(text), " ")
	pid, err := strconv.Atoi(number)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", b.file(), err)
	}
	if now, err := started(pid); err != nil || now != at {
		return 0, ErrAbsent
	}
	return pid, nil
}

// started is when a process was started, in clock ticks since boot (proc_pid_stat(5), fields 3, 20 and 22). A zombie is no
// process, once the last of its threads, which ends the others of its pid namespace, has gone.
func started(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The name, in parentheses, may contain anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 || fields[0] == "X" || fields[0] == "Z" && fields[17] <= "1" {
		return "", fmt.Errorf("process %d has ended", pid)
	}
	return fields[19], nil
}

// Command runs a command in the box. Space is a list of nsenter's letters: n for the network, and so on.
func (b *Box) Command(space string, args ...string) (*exec.Cmd, error) {
	pid, err := b.Pid()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.Name, err)
	}
	all := []string{"-t", strconv.Itoa(pid)}
	for _, s := range space {
		all = append(all, "-"+string(s))
	}
	return exec.Command("nsenter", append(append(all, "--"), args...)...), nil //nolint:noctx // its caller decides
}

const (
	// Whole are all namespaces of a box.
	Whole = "mnpu"
	// Network is the network namespace only.
	Network = "n"
)

// Run runs a command in the box to its end.
func (b *Box) Run(space string, args ...string) error {
	cmd, err := b.Command(space, args...)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("in %s: %s: %w: %s", b.Name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// Stop ends everything in the box and waits for it. A box that does not run is stopped already.
func (b *Box) Stop() error {
	pid, err := b.Pid()
	if errors.Is(err, ErrAbsent) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("%s: kill %d: %w", b.Name, pid, err)
	}
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := b.Pid(); errors.Is(err, ErrAbsent) {
			return os.Remove(b.file())
		}
		select {
		case <-deadline.C:
			return fmt.Errorf("%s: process %d does not end within a minute", b.Name, pid)
		case <-tick.C:
		}
	}
}
