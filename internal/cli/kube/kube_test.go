package kube

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// An API server that takes the connection and never says a word is given up.
func TestSilentServer(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = serverVersion(&rest.Config{Host: "https://" + l.Addr().String()}, 50*time.Millisecond)
	if err == nil || !Unreachable(&UnreachableError{err}) || !strings.Contains(err.Error(), "Timeout") && !strings.Contains(err.Error(), "deadline") {
		t.Errorf("%v", err)
	}
}

// The way to a pod through an API server that never says a word is given up with the
// context, and nothing of it is left once the connection is.
func TestDialSilentServer(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := &rest.Config{Host: "http://" + l.Addr().String()}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{Interface: client, Config: cfg}
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := c.Dial(ctx, "ambit-system", "ztunnel", 15000)
		done <- err
	}()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// The question was asked.
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cancel(errors.New("enough"))
	if err := <-done; err == nil || err.Error() != "port 15000 of pod ambit-system/ztunnel: enough" {
		t.Errorf("error %v", err)
	}
}

func TestPlainProblem(t *testing.T) {
	for text, want := range map[string]string{
		`error forwarding port 15000 to pod 0af1, uid : failed to connect to localhost:15000 inside namespace "0af1", IPv4: dial tcp4 127.0.0.1:15000: connect: connection refused IPv6 dial tcp6: address localhost: no suitable address found`: "connect: connection refused",
		"socat: connection refused": "socat: connection refused",
		"dial tcp4 ":                "dial tcp4 ",
	} {
		if got := plainProblem(errors.New(text)).Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
