package netns_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// target is what the chaos load connects to.
type target struct {
	Name, Addr string
	Held       bool // one connection that stays open, or one after the other
}

// casualty is a connection that failed.
type casualty struct {
	Target     string
	Begin, End time.Time
	Error      string
}

func (c casualty) String() string {
	const form = "15:04:05.000"
	return fmt.Sprintf("%s: begun %s, failed %s: %s", c.Target, c.Begin.Format(form), c.End.Format(form), c.Error)
}

// endured is what became of a load.
type endured struct {
	OK      map[string]int // connections, or bytes there and back on one that is held
	Slowest map[string]time.Duration
	Failed  []casualty
}

func (e endured) summary(pod string) string {
	var all strings.Builder
	fmt.Fprintf(&all, "%s:", pod)
	for name, n := range e.OK {
		fmt.Fprintf(&all, " %s %d (slowest %s)", name, n, e.Slowest[name].Round(time.Millisecond))
	}
	fmt.Fprintf(&all, "; %d failed", len(e.Failed))
	return all.String()
}

// chaosLoad is a load from one pod.
type chaosLoad struct {
	m     *mesh
	pod   string
	paths map[string]path // by the target's name
	cmd   *exec.Cmd
	in    io.Closer
	out   bytes.Buffer
}

func (m *mesh) chaosLoad(namespace, pod string, paths map[string]path, targets ...target) *chaosLoad {
	m.t.Helper()
	text, err := json.Marshal(targets)
	if err != nil {
		m.t.Fatal(err)
	}
	l := &chaosLoad{m: m, pod: namespace + "/" + pod, paths: paths, cmd: m.probe(m.t.Context(), namespace, pod, "chaos", string(text))}
	in, err := l.cmd.StdinPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	l.in, l.cmd.Stdout, l.cmd.Stderr = in, &l.out, &l.out
	if err := l.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	return l
}

func (l *chaosLoad) end() (got endured) {
	l.m.t.Helper()
	err := errors.Join(l.in.Close(), l.cmd.Wait())
	if err == nil {
		err = json.Unmarshal(l.out.Bytes(), &got)
	}
	if err != nil {
		l.m.t.Fatalf("load of %s: %v\n%s", l.pod, err, l.out.Bytes())
	}
	return got
}

const (
	// chaosPatience is more than what is taken away stays away.
	chaosPatience = time.Minute
	// chaosPause is between two connections, and two bytes on one that is held.
	chaosPause = 50 * time.Millisecond
)

// probeChaos keeps connecting to its targets until standard input ends, and says what
// became of that.
func probeChaos(text string) error {
	var targets []target
	if err := json.Unmarshal([]byte(text), &targets); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	w := &witness{got: endured{OK: make(map[string]int), Slowest: make(map[string]time.Duration)}}
	var wg sync.WaitGroup
	for _, to := range targets {
		if to.Held {
			wg.Go(func() { w.repeat(ctx, to, w.hold) })
			continue
		}
		for range 2 { // one that waits does not keep the other from trying
			wg.Go(func() { w.repeat(ctx, to, w.connect) })
		}
	}
	wg.Wait()
	return json.NewEncoder(os.Stdout).Encode(w.got)
}

// witness notes what becomes of connections.
type witness struct {
	mu  sync.Mutex
	got endured // guarded by mu
}

func (w *witness) ok(to target, took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got.OK[to.Name]++
	w.got.Slowest[to.Name] = max(w.got.Slowest[to.Name], took)
}

func (w *witness) repeat(ctx context.Context, to target, try func(context.Context, target) error) {
	for ctx.Err() == nil {
		begin := time.Now()
		if err := try(ctx, to); err != nil {
			w.mu.Lock()
			w.got.Failed = append(w.got.Failed, casualty{to.Name, begin, time.Now(), err.Error()})
			w.mu.Unlock()
		}
		chaosWait(ctx)
	}
}

func chaosWait(ctx context.Context) {
	select {
	case <-time.After(chaosPause):
	case <-ctx.Done():
	}
}

func (w *witness) connect(_ context.Context, to target) error {
	begin := time.Now()
	c, err := net.DialTimeout("tcp", to.Addr, chaosPatience)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(begin.Add(chaosPatience))
	if _, err := clientEcho(c.(*net.TCPConn), check{Size: 1000}); err != nil {
		return err
	}
	w.ok(to, time.Since(begin))
	return nil
}

// hold beats on one connection.
func (w *witness) hold(ctx context.Context, to target) error {
	c, err := net.DialTimeout("tcp", to.Addr, chaosPatience)
	if err != nil {
		return err
	}
	defer c.Close()
	for b := []byte("x"); ctx.Err() == nil; chaosWait(ctx) {
		begin := time.Now()
		_ = c.SetDeadline(begin.Add(chaosPatience))
		if _, err := c.Write(b); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return fmt.Errorf("on %s->%s: %w", c.LocalAddr(), c.RemoteAddr(), err)
		}
		w.ok(to, time.Since(begin))
	}
	return nil
}
