package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ambit-mesh/ambit/internal/local/process"
)

// Target is a container to probe.
type Target struct {
	// NodeNet is the network namespace that network probes come from.
	NodeNet *os.File
	// Source4 and Source6 are the addresses they come from.
	Source4, Source6 netip.Addr
	PodIP            netip.Addr
	Ports            []corev1.ContainerPort
	// Exec runs a program in the container and gives its exit code.
	Exec func(ctx context.Context, argv []string) (int, error)
}

// Check probes once; nil is success.
func (t *Target) Check(ctx context.Context, p *corev1.Probe) error {
	timeout := time.Duration(max(1, p.TimeoutSeconds)) * time.Second
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	switch {
	case p.HTTPGet != nil:
		return t.http(ctx, p.HTTPGet)
	case p.TCPSocket != nil:
		return t.tcp(ctx, p.TCPSocket)
	case p.GRPC != nil:
		return t.grpc(ctx, p.GRPC)
	case p.Exec != nil:
		code, err := t.Exec(ctx, p.Exec.Command)
		if err == nil && code != 0 {
			err = fmt.Errorf("exec probe %s: exit code %d", strings.Join(p.Exec.Command, " "), code)
		}
		return err
	}
	return errors.New("probe has none of httpGet, tcpSocket, grpc and exec")
}

func (t *Target) address(host string, port intstr.IntOrString) (string, error) {
	number := int(port.IntVal)
	if port.Type == intstr.String {
		number = 0
		for _, p := range t.Ports {
			if p.Name == port.StrVal {
				number = int(p.ContainerPort)
			}
		}
		if number == 0 {
			return "", fmt.Errorf("probe port %q: the container has no port of that name", port.StrVal)
		}
	}
	if host == "" {
		host = t.PodIP.String()
	}
	return net.JoinHostPort(host, strconv.Itoa(number)), nil
}

// dial connects from the node's network namespace.
func (t *Target) dial(ctx context.Context, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("probe %s: host must be an IP address", address)
	}
	source := t.Source4
	if to.Addr().Is6() {
		source = t.Source6
	}
	var conn net.Conn
	err = process.InNet(t.NodeNet, func() error {
		// With a literal address the dialer stays in this thread.
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: source.AsSlice()}}
		var err error
		conn, err = d.DialContext(ctx, "tcp", address)
		return err
	})
	return conn, err
}

func (t *Target) tcp(ctx context.Context, a *corev1.TCPSocketAction) error {
	address, err := t.address(a.Host, a.Port)
	if err != nil {
		return err
	}
	conn, err := t.dial(ctx, address)
	if err != nil {
		return err
	}
	return conn.Close()
}

func (t *Target) http(ctx context.Context, a *corev1.HTTPGetAction) error {
	address, err := t.address(a.Host, a.Port)
	if err != nil {
		return err
	}
	scheme := strings.ToLower(string(a.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	u, err := url.Parse(scheme + "://" + address)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	path, query, _ := strings.Cut(a.Path, "?")
	u.Path, u.RawQuery = "/"+strings.TrimPrefix(path, "/"), query
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	req.Header.Set("User-Agent", "ambit-probe")
	for _, h := range a.HTTPHeaders {
		if strings.EqualFold(h.Name, "Host") {
			req.Host = h.Value
		} else {
			req.Header.Add(h.Name, h.Value)
		}
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, address string) (net.Conn, error) { return t.dial(ctx, address) },
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // a probe asks whether somebody answers, not who; kubelets do not check either
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	// What the body says does not count; reading some lets the program finish.
	_, _ = io.CopyN(io.Discard, resp.Body, 10<<10)
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("GET %s: status %d", u, resp.StatusCode)
	}
	return nil
}

func (t *Target) grpc(ctx context.Context, a *corev1.GRPCAction) error {
	address, err := t.address("", intstr.FromInt32(a.Port))
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(t.dial))
	if err != nil {
		return err
	}
	defer conn.Close()
	req := &healthv1.HealthCheckRequest{}
	if a.Service != nil {
		req.Service = *a.Service
	}
	resp, err := healthv1.NewHealthClient(conn).Check(ctx, req)
	if err != nil {
		return err
	}
	if resp.Status != healthv1.HealthCheckResponse_SERVING {
		return fmt.Errorf("gRPC health of %s: %s", address, resp.Status)
	}
	return nil
}
