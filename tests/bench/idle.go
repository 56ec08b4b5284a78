package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// idleConns is how many tunnelled connections are held; the limit of file
// descriptors of a process is 20,000 on small machines.
const idleConns = 5000

// idle measures what an idle tunnelled connection costs each ztunnel.
func (b *bench) idle(ctx context.Context) error {
	echo, _ := targets(ambit)
	before, err := ztunnelMemory(ctx, b.name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := b.exec(ctx, "load", "--kind", "idle", "--conns", strconv.Itoa(idleConns), "--target", echo)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if strings.TrimSpace(line) != "open" {
		cancel()
		_ = cmd.Wait()
		return fmt.Errorf("idle connections: %q, %w", line, err)
	}
	// Two collections, so that stacks that grew for the set-up are given back.
	select {
	case <-time.After(150 * time.Second):
	case <-ctx.Done():
	}
	after, err := ztunnelMemory(ctx, b.name)
	cancel()
	_ = cmd.Wait() // it was told to end
	if err != nil {
		return err
	}
	fmt.Printf("\n%d idle tunnelled connections, resident memory for each (to reach: ≤ 12 KB)\n", idleConns)
	for node, rss := range after {
		fmt.Printf("  ztunnel of %s: %.1f KB (%d → %d KB in all)\n", node, float64(rss-before[node])/idleConns, before[node], rss)
	}
	return nil
}

// ztunnelMemory gives the resident memory of each ztunnel of a mesh in KB, by node.
func ztunnelMemory(ctx context.Context, mesh string) (map[string]int64, error) {
	procs, err := ztunnelProcs(ctx, mesh)
	found := make(map[string]int64)
	for node, p := range procs {
		found[node] = residentKB(p)
	}
	return found, err
}

// ztunnelProcs gives the folder in /proc of each ztunnel of a mesh, by node. Other
// meshes of the machine have nodes of the same names; the state directory of each has
// the mesh's name.
func ztunnelProcs(ctx context.Context, mesh string) (map[string]string, error) {
	found := make(map[string]string)
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		cmdline, err := os.ReadFile(p + "/cmdline")
		args := strings.Split(string(cmdline), "\x00")
		if err != nil || filepath.Base(args[0]) != "ambit-ztunnel" || !strings.Contains(string(cmdline), "/"+mesh+"/logs/") {
			continue
		}
		for i, a := range args {
			node, ok := strings.CutPrefix(a, "--node=")
			if a == "--node" && i+1 < len(args) {
				node, ok = args[i+1], true
			}
			if ok {
				found[node] = p
			}
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no ztunnel runs: %w", exec.ErrNotFound)
	}
	return found, nil
}

// residentKB reads from /proc/PID how much of a process' own memory is resident.
func residentKB(proc string) int64 {
	b, _ := os.ReadFile(proc + "/status")
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "RssAnon:" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n
		}
	}
	return 0
}
