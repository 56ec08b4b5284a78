package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/httpstream" //nolint:staticcheck // client-go speaks in its types
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

// dialTimeout bounds the wait for a connection to a port of a pod.
const dialTimeout = 20 * time.Second

// Dial connects to a port of a pod, on its loopback, through the API server. No port
// is opened on this machine. Deadlines of the connection are not supported.
func (c *Cluster) Dial(ctx context.Context, namespace, pod string, port int) (net.Conn, error) {
	wrap := func(err error) error { return fmt.Errorf("port %d of pod %s/%s: %w", port, namespace, pod, err) }
	round, upgrader, err := spdy.RoundTripperFor(c.Config)
	if err != nil {
		return nil, wrap(err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, dialTimeout, fmt.Errorf("no connection after %s", dialTimeout))
	defer cancel()
	at := c.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward").URL()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at.String(), nil)
	if err != nil {
		return nil, wrap(err)
	}
	type result struct {
		conn *podConn
		err  error
	}
	done := make(chan result)
	// The wait for the API server's answer, and for its consent to streams, does not
	// end with a context.
	go func() {
		conn, err := open(upgrader, &http.Client{Transport: round}, req, port)
		select {
		case done <- result{conn, err}:
		case <-ctx.Done():
			if err == nil {
				conn.Close()
			}
		}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, wrap(r.err)
		}
		r.conn.wrap = wrap
		return r.conn, nil
	case <-ctx.Done():
		return nil, wrap(context.Cause(ctx))
	}
}

// open asks for a connection to a pod and for the two streams of one port.
func open(upgrader spdy.Upgrader, client *http.Client, req *http.Request, port int) (*podConn, error) {
	conn, protocol, err := spdy.Negotiate(upgrader, client, req, portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, err
	}
	c := &podConn{conn: conn, said: make(chan struct{})}
	if protocol != portforward.PortForwardProtocolV1Name {
		conn.Close()
		return nil, fmt.Errorf("the API server speaks %q instead of %q", protocol, portforward.PortForwardProtocolV1Name)
	}
	headers := http.Header{}
	headers.Set(corev1.PortHeader, strconv.Itoa(port))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	problems, err := conn.CreateStream(headers)
	if err == nil {
		problems.Close() // nothing is written to it
		headers.Set(corev1.StreamType, corev1.StreamTypeData)
		c.Stream, err = conn.CreateStream(headers)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	go c.listen(problems)
	return c, nil
}

// podConn is a connection to a port of a pod: a stream, and another one that tells
// what went wrong.
type podConn struct {
	httpstream.Stream
	conn httpstream.Connection
	wrap func(error) error
	once sync.Once
	said chan struct{} // closed when problem is set
	// problem is what the node said.
	problem error
}

// maxProblem bounds what a node may say of a problem, in bytes.
const maxProblem = 4096

func (c *podConn) listen(from io.Reader) {
	defer close(c.said)
	text, _ := io.ReadAll(io.LimitReader(from, maxProblem))
	c.problem = textError(string(text))
}

// patienceProblem is how long the end of a connection waits for its reason.
const patienceProblem = time.Second

// Read implements net.Conn. The error of a connection that the node could not make
// is what the node says.
func (c *podConn) Read(p []byte) (int, error) {
	n, err := c.Stream.Read(p)
	if err == nil {
		return n, nil
	}
	timer := time.NewTimer(patienceProblem)
	defer timer.Stop()
	select {
	case <-c.said:
		if c.problem != nil {
			return n, c.wrap(plainProblem(c.problem))
		}
	case <-timer.C:
	}
	return n, err
}

// plainProblem leaves out what containerd says around the reason: ids of containers
// and network namespaces, and that loopback has no address of IPv6.
func plainProblem(err error) error {
	if _, text, ok := strings.Cut(err.Error(), "dial tcp4 "); ok {
		if _, reason, ok := strings.Cut(text, ": "); ok {
			reason, _, _ = strings.Cut(reason, " IPv6 ")
			return errors.New(reason)
		}
	}
	return err
}

// Close implements net.Conn.
func (c *podConn) Close() error {
	var err error
	c.once.Do(func() { err = c.conn.Close() })
	return err
}

// podAddr is the address of a connection, which has none on this machine.
type podAddr struct{}

func (podAddr) Network() string { return "portforward" }
func (podAddr) String() string  { return "portforward" }

func (c *podConn) LocalAddr() net.Addr              { return podAddr{} }
func (c *podConn) RemoteAddr() net.Addr             { return podAddr{} }
func (c *podConn) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (c *podConn) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (c *podConn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

func textError(s string) error {
	if s = strings.TrimSpace(s); s == "" {
		return nil
	}
	return errors.New(s)
}

// Ask sends a request to a port of a pod and gives the answer's body.
func (c *Cluster) Ask(ctx context.Context, namespace, pod string, port int, method, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+pod+path, nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return c.Dial(ctx, namespace, pod, port) },
	}}
	resp, err := client.Do(req)
	if err != nil {
		// Its URL is nobody's, and a pod that does not answer is not a cluster that does not.
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return nil, fmt.Errorf("pod %s/%s: %w", namespace, pod, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("pod %s/%s: %w", namespace, pod, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("pod %s/%s: %s %s: %s: %s", namespace, pod, method, path, resp.Status, strings.TrimSpace(string(body)))
	}
	return body, nil
}
