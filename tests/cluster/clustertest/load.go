package clustertest

import (
	"bytes"
	"context"
	"io"
	"os/exec"
	"strings"
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
	if out := l.output.String(); l.err != nil || !strings.Contains(out, "Failed=0") {
		l.c.t.Errorf("requests from %s failed: %v\n%s", l.what, l.err, out)
	} else {
		l.c.t.Logf("load from %s: %s", l.what, strings.Join(strings.Fields(out), " "))
	}
}
