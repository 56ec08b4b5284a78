package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cores are some of the machine's, as a list of numbers: 0,1.
type cores string

// halves shares the machine's cores out between two nodes.
func halves() (first, second cores) {
	n := runtime.NumCPU()
	list := make([]string, n)
	for i := range list {
		list[i] = strconv.Itoa(i)
	}
	return cores(strings.Join(list[:n/2], ",")), cores(strings.Join(list[n/2:], ","))
}

func (c cores) set() (*unix.CPUSet, error) {
	var set unix.CPUSet
	for s := range strings.SplitSeq(string(c), ",") {
		i, err := strconv.Atoi(s)
		if err != nil || i < 0 {
			return nil, fmt.Errorf("cores %q: want numbers and commas", string(c))
		}
		set.Set(i)
	}
	return &set, nil
}

// keep leaves a process nothing but these cores. Go's runtime sees it within a second
// and runs as many threads at a time.
func (c cores) keep(pid string) error {
	set, err := c.set()
	if err != nil {
		return err
	}
	threads, err := os.ReadDir(filepath.Join("/proc", pid, "task"))
	if err != nil {
		return err
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("cores %s for process %s: %w", c, pid, err)
		}
	}
	return nil
}

// pin keeps all processes of this network namespace on the cores it is given.
func pin(_ context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: bench pin CORES")
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, p := range procs {
		ns, err := os.Readlink(filepath.Join(p, "ns", "net"))
		if err != nil || ns != own {
			continue // ended, or of another namespace
		}
		if err := cores(args[0]).keep(filepath.Base(p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// shareCores gives each node, its pod included, a half of the cores, as if they were
// two machines.
func (b *bench) shareCores(ctx context.Context) error {
	first, second := halves()
	if first == "" {
		return errors.New("-cores node: the machine has one core only; leave the flag out")
	}
	b.clientCores = first
	for _, in := range []struct {
		where []string
		cores cores
	}{
		{[]string{"n1"}, first},
		{[]string{"-n", "bench", "client", "-c", "hold"}, first},
		{[]string{"n2"}, second},
		{[]string{"-n", "bench", "server", "-c", "serve"}, second},
	} {
		args := append(append([]string{"local", "exec", "--name", b.name}, in.where...), "--", b.self, "pin", string(in.cores))
		if out, err := exec.CommandContext(ctx, b.cli, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("pin the processes of %s: %w: %s", strings.Join(in.where, " "), err, out)
		}
	}
	return nil
}
