package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Command is a program to run.
type Command struct {
	// Argv is the program and its arguments. A program without a slash is
	// looked for in the PATH of Env and then in Dir; a relative one in Dir.
	Argv []string
	Env  []string
	// Dir is the working directory; / when empty.
	Dir string
	// User and Group are switched to when they are not nil, which takes root.
	User, Group *int64
	// Stdin, Stdout and Stderr; nil is /dev/null.
	Stdin, Stdout, Stderr *os.File
	Namespaces            Namespaces
}

// The helper's file descriptors, after the three standard ones.
const (
	fdSpec   = 3
	fdStatus = 4
	fdFirst  = 5 // the namespaces, in the order net, uts, mnt
)

// helperArg is what the helper's argv[0] is, which nobody types by accident.
const helperArg = "ambit-local-exec"

// spec is what the helper is told.
type spec struct {
	Argv        []string `json:"argv"`
	Env         []string `json:"env"`
	Dir         string   `json:"dir"`
	User, Group *int64
	// Namespaces are the CLONE_NEW* flags of the descriptors from fdFirst on.
	Namespaces []int `json:"namespaces"`
}

// StartError says that the program could not be executed.
type StartError struct{ Reason string }

func (e *StartError) Error() string { return e.Reason }

// Start runs a program. It returns when the program has been executed, or when
// it could not be.
func (r *Reaper) Start(c Command) (*Process, error) {
	if len(c.Argv) == 0 || c.Argv[0] == "" {
		return nil, errors.New("start a program: no command")
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Argv[0], err)
	}
	defer null.Close()
	s := spec{Argv: c.Argv, Env: c.Env, Dir: c.Dir, User: c.User, Group: c.Group}
	files := []*os.File{c.Stdin, c.Stdout, c.Stderr}
	for i, f := range files {
		if f == nil {
			files[i] = null
		}
	}
	var handles []*os.File
	// The mount namespace comes last: /proc/self/fd may look different in it.
	for _, n := range []struct {
		file *os.File
		flag int
	}{{c.Namespaces.Net, unix.CLONE_NEWNET}, {c.Namespaces.UTS, unix.CLONE_NEWUTS}, {c.Namespaces.Mount, unix.CLONE_NEWNS}} {
		if n.file != nil {
			handles = append(handles, n.file)
			s.Namespaces = append(s.Namespaces, n.flag)
		}
	}
	p, err := r.startHelper(s, files, handles)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Argv[0], err)
	}
	return p, nil
}

func (r *Reaper) startHelper(s spec, stdio, handles []*os.File) (*Process, error) {
	sf, err := specFile(s)
	if err != nil {
		return nil, err
	}
	defer sf.Close()
	statusR, statusW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer statusR.Close()
	files := append(append(stdio, sf, statusW), handles...)
	fds := make([]uintptr, len(files))
	for i, f := range files {
		fds[i] = f.Fd()
	}
	p, err := r.start("/proc/self/exe", []string{helperArg}, &syscall.ProcAttr{
		Env:   []string{"PATH=/usr/bin:/bin"},
		Files: fds,
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	statusW.Close()
	if err != nil {
		return nil, err
	}
	report, err := io.ReadAll(statusR)
	if err != nil {
		return nil, fmt.Errorf("wait for the helper: %w", err)
	}
	if len(report) > 0 {
		<-p.Done()
		return nil, &StartError{Reason: string(report)}
	}
	return p, nil
}

// specFile puts the spec into an unnamed file, which unlike a pipe takes any
// size without a reader.
func specFile(s spec) (*os.File, error) {
	raw, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("spec", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), "spec")
	if _, err := f.WriteAt(raw, 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("memfd: %w", err)
	}
	return f, nil
}

// Lookup gives the value of a variable in a list of NAME=value, the last one
// winning.
func Lookup(env []string, name string) string {
	value := ""
	for _, kv := range env {
		if k, v, ok := strings.Cut(kv, "="); ok && k == name {
			value = v
		}
	}
	return value
}
