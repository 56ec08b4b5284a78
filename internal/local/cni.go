package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/internal/local/pod"
)

// agent is a node agent, reached over its CNI socket.
type agent struct{ http *http.Client }

var _ pod.Capturer = (*agent)(nil)

func newAgent(socket string) *agent {
	var d net.Dialer
	return &agent{http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
	}}}
}

// Add announces a pod and waits until the agent has decided about it.
func (a *agent) Add(ctx context.Context, s pod.Sandbox) error {
	return a.post(ctx, "/cmdadd", map[string]any{
		"netns": s.Netns, "podName": s.Name, "podNamespace": s.Namespace, "podUID": s.UID, "ips": s.IPs,
	})
}

// Del says that a pod is gone.
func (a *agent) Del(ctx context.Context, uid types.UID) error {
	return a.post(ctx, "/cmddel", map[string]any{"podUID": uid})
}

func (a *agent) post(ctx context.Context, path string, body any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://nodeagent"+path, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.http.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			return fmt.Errorf("the node agent does not answer: %w", op)
		}
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	var failure struct{ Error string }
	if json.Unmarshal(answer, &failure) != nil || failure.Error == "" {
		failure.Error = resp.Status
	}
	return fmt.Errorf("the node agent refuses: %s", failure.Error)
}
