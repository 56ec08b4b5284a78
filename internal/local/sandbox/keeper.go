package sandbox

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Config describes a sandbox.
type Config struct {
	// Name is also its host name.
	Name string
	// Program is what pid 1 runs, which must call RunInit; the running program when
	// empty.
	Program string
	// Path is the state directory, as Path gave it.
	Path string
	// Keep are directories that programs inside must see even if they are
	// below /run, which is private to the sandbox.
	Keep []string
	// Orders are handed to Inside.
	Orders []byte
}

// Sandbox is a running sandbox, seen from its keeper.
type Sandbox struct {
	dir      *directory
	cmd      *exec.Cmd
	lifeline *os.File // pid 1 gives up when its other end reads EOF
}

// The file descriptors of pid 1, after the three standard ones.
const (
	fdOrders = 3 + iota
	fdLifeline
	fdReport
	fdLock
	fdParent
)

// initArg is what the argv[0] of pid 1 is.
const initArg = "ambit-local-init"

// LogName is the file of the state directory that pid 1 logs to.
const LogName = "supervisor.log"

// Start makes the sandbox and returns when pid 1 has said that it is up. The
// sandbox ends with this process, however that ends.
func Start(cfg Config) (*Sandbox, error) {
	dir, err := acquire(cfg.Path, cfg.Name)
	if err != nil {
		return nil, err
	}
	s, err := start(cfg, dir)
	if err != nil {
		return nil, errors.Join(err, dir.remove())
	}
	return s, nil
}

func start(cfg Config, dir *directory) (*Sandbox, error) {
	log, err := os.OpenFile(filepath.Join(dir.path, LogName), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log of pid 1: %w", err)
	}
	defer log.Close()
	lifelineR, lifelineW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer lifelineR.Close()
	reportR, reportW, err := os.Pipe()
	if err != nil {
		lifelineW.Close()
		return nil, err
	}
	defer reportR.Close()
	parent, err := os.Open(filepath.Dir(dir.path))
	if err == nil {
		defer parent.Close()
		var orders *os.File
		if orders, err = ordersFile(cfg); err == nil {
			defer orders.Close()
			s := &Sandbox{dir: dir, lifeline: lifelineW}
			s.cmd = command(cmp.Or(cfg.Program, "/proc/self/exe"), log, orders, lifelineR, reportW, dir.lock, parent)
			err = s.launch(reportR, reportW)
			if err == nil {
				return s, nil
			}
		}
	}
	reportW.Close()
	lifelineW.Close()
	return nil, err
}

func command(program string, log *os.File, extra ...*os.File) *exec.Cmd {
	cmd := exec.Command(program)
	cmd.Args = []string{initArg}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = extra
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// Out of reach of the terminal's Ctrl-C, which is the keeper's to handle.
		Setsid: true,
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID |
			unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	if !privileged() {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return cmd
}

// launch starts pid 1 and waits for its report.
func (s *Sandbox) launch(reportR, reportW *os.File) error {
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("make the sandbox's namespaces: %w%s", err, hint(err))
	}
	reportW.Close()
	report, err := io.ReadAll(reportR)
	if err == nil && string(report) == reportUp {
		return nil
	}
	s.lifeline.Close()
	// Its exit code says less than its report.
	_ = s.cmd.Wait()
	if len(report) == 0 {
		return fmt.Errorf("the sandbox's pid 1 ended before it was up%s", s.lastLog())
	}
	return errors.New(string(report))
}

func (s *Sandbox) lastLog() string {
	raw, err := os.ReadFile(filepath.Join(s.dir.path, LogName))
	if err != nil || len(raw) == 0 {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(raw), []byte("\n"))
	return "; its last words:\n" + string(bytes.Join(lines[max(0, len(lines)-10):], []byte("\n")))
}

// Wait blocks until the sandbox has ended, and removes what it leaves. When ctx
// ends it asks the sandbox to end in good order first.
func (s *Sandbox) Wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	err := s.cmd.Wait()
	s.lifeline.Close()
	if err != nil {
		err = fmt.Errorf("the sandbox's pid 1 ended: %w%s", err, s.lastLog())
	}
	return errors.Join(err, s.dir.remove())
}

// privileged reports whether namespaces can be made without a user namespace.
func privileged() bool {
	if os.Geteuid() != 0 {
		return false
	}
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(raw)) {
		if value, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			want := uint64(1)<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN
			return err != nil || caps&want == want
		}
	}
	return true
}

// hint says what a system that refuses namespaces wants to be told.
func hint(err error) string {
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EACCES) {
		return ""
	}
	return "; user namespaces are needed: check the sysctls user.max_user_namespaces, kernel.unprivileged_userns_clone=1 and" +
		" kernel.apparmor_restrict_unprivileged_userns=0, and a container's seccomp profile; or run as root"
}
