package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

// forwardTimeout bounds the wait until a port of a pod is open here.
const forwardTimeout = 20 * time.Second

// Forward opens a port of a pod on this machine and hands its address over, until
// use returns.
func (c *Cluster) Forward(ctx context.Context, namespace, pod string, port int, use func(address string) error) error {
	round, upgrader, err := spdy.RoundTripperFor(c.Config)
	if err != nil {
		return err
	}
	url := c.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward").URL()
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: round}, http.MethodPost, url)
	stop, ready := make(chan struct{}), make(chan struct{})
	var problems strings.Builder
	fw, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", port)}, stop, ready, io.Discard, &problems)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- fw.ForwardPorts() }()
	defer func() {
		close(stop)
		<-done //nolint:errcheck // how a port that is not needed any more was closed
	}()
	timer := time.NewTimer(forwardTimeout)
	defer timer.Stop()
	select {
	case err := <-done:
		done <- nil
		return fmt.Errorf("port %d of pod %s/%s: %w", port, namespace, pod, errors.Join(err, textError(problems.String())))
	case <-timer.C:
		return fmt.Errorf("port %d of pod %s/%s: not open after %s", port, namespace, pod, forwardTimeout)
	case <-ctx.Done():
		return ctx.Err()
	case <-ready:
	}
	ports, err := fw.GetPorts()
	if err != nil {
		return err
	}
	return use(fmt.Sprintf("127.0.0.1:%d", ports[0].Local))
}

func textError(s string) error {
	if s = strings.TrimSpace(s); s == "" {
		return nil
	}
	return errors.New(s)
}

// Ask sends a request to a port of a pod and gives the answer's body.
func (c *Cluster) Ask(ctx context.Context, namespace, pod string, port int, method, path string) ([]byte, error) {
	var body []byte
	err := c.Forward(ctx, namespace, pod, port, func(address string) error {
		req, err := http.NewRequestWithContext(ctx, method, "http://"+address+path, nil)
		if err != nil {
			return err
		}
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if body, err = io.ReadAll(resp.Body); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, strings.TrimSpace(string(body)))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("pod %s/%s: %w", namespace, pod, err)
	}
	return body, nil
}
