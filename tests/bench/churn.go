package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// churnConns stay while pods are replaced: each is a descriptor in the client,
	// in the server and in both ztunnels, of 20,000 that a process may have here.
	churnConns = 10_000
	// churnAtOnce is how many pods are replaced at a time.
	churnAtOnce = 50
	// churnPause is between two requests, of all connections together.
	churnPause = time.Millisecond
)

// kept is what a client with many connections says in the end.
type kept struct {
	Exchanges, Cut int64
	First          string // what went wrong first
}

// keep opens connections and uses one after the other until it is told to end. A
// connection that fails once is one that was cut.
func (l *loader) keep(ctx context.Context) error {
	conns, err := l.dialAll()
	if err != nil {
		return err
	}
	var k kept
	var first sync.Once
	use := func(c net.Conn) bool {
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		if err := exchange(c, make([]byte, 64)); err != nil {
			first.Do(func() { k.First = err.Error() })
			atomic.AddInt64(&k.Cut, 1)
			return false
		}
		atomic.AddInt64(&k.Exchanges, 1)
		return true
	}
	all := func(pause bool) error {
		queue := make(chan int)
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for i := range queue {
					if conns[i] != nil && !use(conns[i]) {
						conns[i] = nil
					}
				}
			})
		}
		for i := range conns {
			if pause && ctx.Err() != nil {
				break
			}
			queue <- i
			if pause {
				<-time.After(churnPause)
			}
		}
		close(queue)
		wg.Wait()
		return ctx.Err()
	}
	if _ = all(false); k.Cut > 0 {
		return fmt.Errorf("%d of %d connections do not work from the start: %s", k.Cut, len(conns), k.First)
	}
	fmt.Println("open")
	for all(true) == nil {
	}
	_ = all(false) // each of them once more
	return json.NewEncoder(os.Stdout).Encode(&k)
}

// churn replaces pods while connections stay.
func (b *bench) churn(ctx context.Context) error {
	if err := b.deployment(0); err != nil {
		return err
	}
	defer os.Remove(filepath.Join(b.dir, "manifests", "churn.yaml"))
	if err := b.enrol(ctx, true); err != nil {
		return err
	}
	if _, err := b.replaced(ctx, nil); err != nil {
		return err
	}
	echo, _ := targets(ambit)
	keeping, stop := context.WithCancel(ctx)
	defer stop()
	cmd := b.exec(keeping, "load", "--kind", "keep", "--conns", strconv.Itoa(churnConns), "--target", echo)
	cmd.WaitDelay = time.Minute // every connection is used once more
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	r := bufio.NewReader(out)
	if line, err := r.ReadString('\n'); strings.TrimSpace(line) != "open" {
		stop()
		return fmt.Errorf("%d connections: %q: %w", churnConns, line, errors.Join(err, cmd.Wait()))
	}
	before, err := b.spent(ctx)
	if err != nil {
		return err
	}
	began, replaced := time.Now(), 0
	old, err := b.churning(ctx)
	if err != nil {
		return err
	}
	for generation := 1; replaced < b.churnPods; generation++ {
		if err := b.deployment(generation); err != nil {
			return err
		}
		fresh, err := b.replaced(ctx, old)
		if err != nil {
			return err
		}
		replaced += len(old)
		old = fresh
		fmt.Fprintf(os.Stderr, "churn: %d pods replaced after %s\n", replaced, time.Since(began).Round(time.Second))
	}
	took := time.Since(began)
	after, err := b.spent(ctx)
	if err != nil {
		return err
	}
	stop()
	said, err := io.ReadAll(r)
	_ = cmd.Wait() // it was told to end
	var k kept
	// Behind it stands what every load prints.
	if err := errors.Join(err, json.NewDecoder(bytes.NewReader(said)).Decode(&k)); err != nil {
		return fmt.Errorf("what became of the connections: %q: %w", said, err)
	}
	fmt.Printf("\n%d pods replaced within %s while %d connections stayed: %d of these were cut (to reach: 0), %d exchanges on them\n", replaced, took.Round(time.Second), churnConns, k.Cut, k.Exchanges)
	if k.Cut > 0 {
		fmt.Printf("  the first: %s\n", k.First)
	}
	for node, a := range after {
		used := a.cpu - before[node].cpu
		fmt.Printf("  ztunnel of %s: %.2f s of CPU (%.1f %% of a core), resident %d → %d MB\n", node, used.Seconds(), 100*used.Seconds()/took.Seconds(), before[node].kb>>10, a.kb>>10)
	}
	return nil
}

// spending is what a ztunnel has used and holds.
type spending struct {
	cpu time.Duration
	kb  int64
}

func (b *bench) spent(ctx context.Context) (map[string]spending, error) {
	procs, err := ztunnelProcs(ctx, b.name)
	out := make(map[string]spending)
	for node, p := range procs {
		out[node] = spending{cpuOf(p), residentKB(p)}
	}
	return out, err
}

// deployment writes the pods that are replaced; another generation is other pods.
func (b *bench) deployment(generation int) error {
	text := fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: churn, namespace: bench}
spec:
  replicas: %d
  selector: {matchLabels: {app: churn}}
  strategy: {rollingUpdate: {maxSurge: 100%%, maxUnavailable: 0}}
  template:
    metadata: {labels: {app: churn}, annotations: {generation: "%d"}}
    spec:
      nodeName: n2
      containers: [{name: hold, image: none, command: [%q, hold]}]
`, churnAtOnce, generation, b.self)
	dir := filepath.Join(b.dir, "manifests")
	tmp := filepath.Join(dir, ".churn.yaml")
	return errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(tmp, []byte(text), 0o644), os.Rename(tmp, filepath.Join(dir, "churn.yaml")))
}

// churning gives the pods of the deployment that are captured, by name.
func (b *bench) churning(ctx context.Context) (map[string]bool, error) {
	out, err := exec.CommandContext(ctx, b.cli, "local", "status", "--name", b.name, "-o", "json").Output()
	if err != nil {
		return nil, err
	}
	var st struct {
		Pods []struct {
			Name     string `json:"name"`
			Captured string `json:"captured"`
		} `json:"pods"`
	}
	if err := json.Unmarshal(out, &st); err != nil {
		return nil, err
	}
	pods := make(map[string]bool)
	for _, p := range st.Pods {
		if strings.HasPrefix(p.Name, "churn-") {
			pods[p.Name] = p.Captured == "yes"
		}
	}
	return pods, nil
}

// replaced waits until every pod is a captured one that was not there before.
func (b *bench) replaced(ctx context.Context, old map[string]bool) (map[string]bool, error) {
	for deadline := time.Now().Add(10 * time.Minute); ; { // a busy machine is slow, and proves as much
		pods, err := b.churning(ctx)
		if err != nil {
			return nil, err
		}
		done := len(pods) == churnAtOnce
		for name, captured := range pods {
			_, was := old[name]
			done = done && captured && !was
		}
		if done {
			return pods, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("pods are not replaced: %d are there", len(pods))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}
