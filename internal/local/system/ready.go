package system

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/ambit-mesh/ambit/internal/local/process"
)

// watchReady asks for readiness until ctx ends: often while the process starts,
// and now and then afterwards. It ends early, with true, when a process that may
// have a successor has let go of its readiness port.
func (c *Component) watchReady(ctx context.Context) (letGo bool) {
	answered := false
	client := Client(c.cfg.Namespaces.Net)
	url := fmt.Sprintf("http://127.0.0.1:%d/healthz/ready", c.cfg.ReadyPort)
	for {
		ready, message, refused := ask(ctx, client, url)
		if ctx.Err() != nil {
			return false
		}
		if refused && answered && c.cfg.Successor {
			return true
		}
		answered = answered || ready
		c.set(func(s *Status) { s.Ready, s.Message = ready, message })
		pause := 50 * time.Millisecond
		if ready {
			pause = 2 * time.Second
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
		}
	}
}

// ask asks once. refused says that nobody listens.
func ask(ctx context.Context, client *http.Client, url string) (ready bool, message string, refused bool) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false, err.Error(), false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false, "readiness port does not answer yet", errors.Is(err, syscall.ECONNREFUSED)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	switch {
	case err != nil:
		return false, err.Error(), false
	case resp.StatusCode == http.StatusOK:
		// What follows the word is a note, such as that the control plane is away.
		_, note, _ := strings.Cut(string(body), "\n")
		return true, strings.TrimSpace(note), false
	default:
		return false, strings.TrimSpace(string(body)), false
	}
}

// Client gives an HTTP client whose connections to literal addresses are made
// from inside a network namespace; nil is this process's own.
func Client(ns *os.File) *http.Client {
	dialer := &net.Dialer{}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: dialer.DialContext}
	if ns != nil {
		transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			var conn net.Conn
			err := process.InNet(ns, func() error {
				var err error
				conn, err = dialer.DialContext(ctx, network, address)
				return err
			})
			return conn, err
		}
	}
	return &http.Client{Transport: transport}
}
