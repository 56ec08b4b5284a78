package clustertest

import (
	"bytes"
	"context"
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// Load is a client in a pod that goes on calling until it is stopped.
type Load struct {
	c      *Cluster
	what   string
	stdin  io.Closer
	ended  chan struct{}
	output bytes.Buffer // until ended is closed, of the process
	err    error        // the same
}

// Load begins to call a URL from a pod, one request after the other. Of those that fail the test hears at Stop.
func (c *Cluster) Load(namespace, pod, url string, args ...string) *Load {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	all := append([]string{"kubectl", "-n", namespace, "exec", "-i", pod, "--", "client", url, "--until-eof"}, args...)
	cmd := exec.CommandContext(ctx, c.program, all...)
	l := &Load{c: c, what: pod + " to " + url, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &l.output, &l.output
	cmd.WaitDelay = time.Second
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		c.t.Fatalf("load from %s: %v", l.what, err)
	}
	l.stdin = stdin
	go func() {
		defer close(l.ended)
		l.err = cmd.Wait()
	}()
	c.t.Cleanup(func() {
		cancel()
		<-l.ended
	})
	return l
}

// Stop ends the load. The test fails if a request has failed, or if the load had ended before.
func (l *Load) Stop() {
	l.c.t.Helper()
	if n, out := l.end(); n != 0 {
		l.c.t.Errorf("%d requests from %s failed: %v\n%s", n, l.what, l.err, out)
	}
}

// StopLossy is Stop for what may lose a few requests, as datagrams do.
func (l *Load) StopLossy(most int) {
	l.c.t.Helper()
	if n, out := l.end(); n > most {
		l.c.t.Errorf("%d requests from %s failed, more than %d: %v\n%s", n, l.what, most, l.err, out)
	}
}

// end ends the load and gives how many requests have failed.
func (l *Load) end() (failed int, out string) {
	l.c.t.Helper()
	select {
	case <-l.ended:
		l.c.t.Errorf("the load from %s has ended by itself", l.what)
	default:
	}
	l.stdin.Close()
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	select {
	case <-l.ended:
	case <-timeout.C:
		l.c.t.Fatalf("the load from %s does not end", l.what)
	}
	out = l.output.String()
	m := regexp.MustCompile(`(?m)^Requests=(\d+)\s+Failed=(\d+)`).FindStringSubmatch(out)
	if m == nil {
		l.c.t.Fatalf("the load from %s: %v\n%s", l.what, l.err, out)
	}
	l.c.t.Logf("load from %s: %s requests, %s failed", l.what, m[1], m[2])
	failed, err := strconv.Atoi(m[2])
	if err != nil {
		l.c.t.Fatal(err)
	}
	return failed, out
}
