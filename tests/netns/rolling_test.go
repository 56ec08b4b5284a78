package netns_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"
)

// probeGraceful is an application as it should be: told to end, it takes no more
// connections and finishes those that it has. Those that wait for it to accept them
// it has too: the close of a listening socket would reset them.
func probeGraceful() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{Port: servers["echo"].port})
	if err != nil {
		return err
	}
	defer l.Close()
	context.AfterFunc(ctx, func() { _ = l.SetDeadline(time.Now()) })
	var serving sync.WaitGroup
	defer serving.Wait()
	serve := func(c *net.TCPConn) {
		serving.Go(func() {
			defer c.Close()
			serveEcho(c)
		})
	}
	for {
		c, err := l.AcceptTCP()
		if err == nil {
			serve(c)
			continue
		}
		if ctx.Err() == nil {
			return err
		}
		waiting, err := queued(l)
		for _, c := range waiting {
			serve(c)
		}
		return errors.Join(err, l.Close())
	}
}

// queued gives the connections that wait to be accepted, whatever the deadline of
// the listener.
func queued(l *net.TCPListener) (conns []*net.TCPConn, err error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	var errs []error
	err = raw.Control(func(listener uintptr) {
		for {
			fd, _, err := syscall.Accept4(int(listener), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
			switch {
			case errors.Is(err, syscall.EAGAIN):
				return
			case errors.Is(err, syscall.EINTR), errors.Is(err, syscall.ECONNABORTED):
				continue
			case err != nil:
				errs = append(errs, fmt.Errorf("accept: %w", err))
				return
			}
			f := os.NewFile(uintptr(fd), "connection")
			c, err := net.FileConn(f)
			if err = errors.Join(err, f.Close()); err != nil {
				errs = append(errs, err)
				return
			}
			conns = append(conns, c.(*net.TCPConn))
		}
	})
	return conns, errors.Join(append(errs, err)...)
}

// rolling is a Deployment on n2, and its Service; a new generation replaces all pods.
func rolling(replicas, generation int) string {
	self, err := os.Executable()
	if err != nil {
		panic(err) // a running program has a path
	}
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: rolling, namespace: in}
spec:
  replicas: %d
  selector: {matchLabels: {app: rolling}}
  strategy: {rollingUpdate: {maxSurge: 100%%, maxUnavailable: 0}}
  template:
    metadata: {labels: {app: rolling}, annotations: {generation: "%d"}}
    spec:
      nodeName: n2
      containers:
      - name: probe
        image: none
        command: [%q, graceful]
        env: [{name: %s, value: "1"}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: rolling, namespace: in}
spec:
  selector: {app: rolling}
  ports: [{name: echo, port: 8080}]
`, replicas, generation, self, roleEnv)
}

// Hundreds of pods are replaced, so many that addresses are used again, under a
// constant load of enrolled clients that try nothing twice: none of their requests
// fails, although the pods take no connection any more from the signal on.
func TestRollingReplacements(t *testing.T) {
	const replicas, generations = 12, 25
	if testing.Short() {
		t.Skip("replaces hundreds of pods")
	}
	files := world()
	files["rolling.yaml"] = rolling(replicas, 0)
	m := start(t, files)
	m.captured("in")
	var loads []*steady
	for _, from := range []string{"client", "server-n1", "server-n2"} {
		loads = append(loads, m.steady("in", from, "rolling.in.svc.cluster.local:8080"))
	}
	users := make(map[string]map[string]bool) // of an address
	pods := make(map[string]bool)
	for g := range generations {
		before := make(map[string]bool)
		for name := range pods {
			before[name] = true
		}
		m.write("rolling.yaml", rolling(replicas, g+1))
		m.until(fmt.Sprintf("generation %d has replaced all before it", g+1), func() bool {
			fresh, old := 0, 0
			for _, p := range m.status().Pods {
				if p.Namespace != "in" || len(p.Name) < 8 || p.Name[:8] != "rolling-" {
					continue
				}
				if before[p.Name] {
					old++
					continue
				}
				pods[p.Name] = true
				for _, ip := range p.IPs {
					if users[ip] == nil {
						users[ip] = make(map[string]bool)
					}
					users[ip][p.Name] = true
				}
				if p.Captured == "yes" && p.State == "Running" {
					fresh++
				}
			}
			return g > 0 && fresh >= replicas && old == 0 || g == 0 && fresh >= replicas
		})
	}
	reused := 0
	for _, names := range users {
		if len(names) > 1 {
			reused++
		}
	}
	total := 0
	for i, l := range loads {
		ok, failures := l.end()
		total += ok
		if failures != "" || ok < atLeast {
			t.Errorf("client %d: %d connections worked, failures: %s\n%s", i, ok, failures, m.linesOf(failures))
		}
	}
	t.Logf("%d pods, %d addresses used by more than one, %d connections", len(pods), reused, total)
	if len(pods) < 200 || reused == 0 {
		t.Errorf("%d pods were replaced and %d addresses used again: too few to prove anything", len(pods), reused)
	}
}
