package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// program is something that runs for as long as its node does.
type program struct {
	name string
	args []string
}

// restartAfter is how long a program that has ended stays away.
const restartAfter = time.Second

// supervise runs programs, starts again what has ended, and reaps what others have left, as the first process of a pid
// namespace has to. It does not return: the process is killed.
func supervise(dir string, programs []program) error {
	running := map[int]program{}
	start := func(p program) error {
		pid, err := launch(dir, p)
		running[pid] = p
		return err
	}
	for _, p := range programs {
		if err := start(p); err != nil {
			return err
		}
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err != nil {
			continue // interrupted by a signal; there is always a child
		}
		p, ours := running[pid]
		if !ours {
			continue
		}
		delete(running, pid)
		fmt.Printf("%s %s ended: exit code %d, signal %v\n", time.Now().Format(time.TimeOnly), p.name, status.ExitStatus(), status.Signal())
		<-time.After(restartAfter)
		if err := start(p); err != nil {
			return err
		}
	}
}

func launch(dir string, p program) (int, error) {
	log, err := os.OpenFile(filepath.Join(dir, p.name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	process, err := os.StartProcess(p.args[0], p.args, &os.ProcAttr{Files: []*os.File{null, log, log}, Env: os.Environ(), Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", p.name, err)
	}
	pid := process.Pid
	return pid, process.Release()
}

// handshake tells box.Start that everything is prepared, and waits until it may go on.
func handshake() error {
	goOn, ready := os.NewFile(3, "go on"), os.NewFile(4, "ready")
	if _, err := ready.Write([]byte{1}); err != nil {
		return err
	}
	ready.Close()
	if _, err := goOn.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("the program that started this has gone: %w", err)
	}
	return goOn.Close()
}
