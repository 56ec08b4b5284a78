package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// errAway says that the agent did not answer.
var errAway = errors.New("the node agent does not answer")

// refusal is an answer of the agent.
type refusal struct {
	text string
	// final says that trying again will not help.
	final bool
}

func (r refusal) Error() string { return r.text }

// dialTimeout bounds a connection to a socket of this machine.
const dialTimeout = time.Second

// ask posts a request to the agent: nil, a refusal, or an error that is errAway.
func ask(ctx context.Context, socket, path string, body any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "unix", socket)
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://nodeagent"+path, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", errAway, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("%w: %w", errAway, err)
	}
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	var failure struct{ Error string }
	if json.Unmarshal(answer, &failure) != nil || failure.Error == "" {
		failure.Error = "the node agent answers " + resp.Status
	}
	return refusal{failure.Error, resp.StatusCode >= 400 && resp.StatusCode < 500}
}
