package l7

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/identity"
)

// dialer connects to a proxy as its clients do.
type dialer interface {
	dial(ctx context.Context, proto string) (net.Conn, error)
	scheme() string
	close()
}

// tunnels is a source ztunnel: connections are streams of shared tunnels.
type tunnels struct {
	pool *hbone.Pool[int]
	// apart gives each connection a tunnel of its own.
	apart bool
	mu    sync.Mutex
	n     int // guarded by mu
}

// from is a socket of the client's address.
func from(ctx context.Context, to string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(clientHost, 0))}
	return d.DialContext(ctx, "tcp", to)
}

func newTunnels(cert *identity.Certificate, host string, apart bool) (*tunnels, error) {
	cfg, err := cert.ClientConfig(account("waypoint"))
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, _ int) (*hbone.ClientConn, error) {
		sock, err := from(ctx, net.JoinHostPort(host, strconv.Itoa(hbonePort)))
		if err != nil {
			return nil, err
		}
		return hbone.NewClientConn(ctx, sock, cfg, hbone.Config{})
	}
	return &tunnels{pool: hbone.NewPool(dial, zap.NewNop()), apart: apart}, nil
}

func (t *tunnels) dial(ctx context.Context, proto string) (net.Conn, error) {
	port := uint16(80)
	if proto == http2Row {
		port = 81
	}
	key := 0
	if t.apart {
		t.mu.Lock()
		t.n++
		key = t.n
		t.mu.Unlock()
	}
	at := netip.AddrPortFrom(serviceVIP, port)
	s, _, cc, err := t.pool.Open(ctx, key, hbone.Request{Authority: at.String()})
	if err != nil {
		return nil, err
	}
	return s.Conn(cc.LocalAddr(), net.TCPAddrFromAddrPort(at)), nil
}

func (t *tunnels) scheme() string { return "http" }

func (t *tunnels) close() {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	t.pool.Drain(over)
}

// secured is a TLS connection for each connection, to Envoy.
type secured struct{ cfg *tls.Config }

func newSecured(cert *identity.Certificate) (*secured, error) {
	cfg, err := cert.ClientConfig(account("waypoint"))
	return &secured{cfg}, err
}

func (s *secured) dial(ctx context.Context, proto string) (net.Conn, error) {
	port, alpn := envoyHTTP1, "http/1.1"
	if proto == http2Row {
		port, alpn = envoyHTTP2, "h2"
	}
	sock, err := from(ctx, net.JoinHostPort(envoyHost, strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	t := tls.Client(sock, secure(s.cfg, alpn))
	return t, t.HandshakeContext(ctx)
}

func (s *secured) scheme() string { return "https" }
func (s *secured) close()         {}

// load is connections to a proxy that ask for the paths of a row.
type load struct {
	row     row
	clients []client
	paths   []string
}

func newLoad(ctx context.Context, d dialer, r row, n int) (*load, error) {
	l := &load{row: r}
	// A path of every rule, or of a thousand of them, spread over the table.
	for i := range min(r.rules, 1000) {
		l.paths = append(l.paths, prefix(i*r.rules/min(r.rules, 1000))+"/item/"+strconv.Itoa(r.size>>10))
	}
	for range n {
		c, err := d.dial(ctx, r.proto)
		if err != nil {
			l.close()
			return nil, err
		}
		l.clients = append(l.clients, newClient(r.proto, d.scheme(), c))
	}
	return l, nil
}

func (l *load) close() {
	for _, c := range l.clients {
		_ = c.Close()
	}
}

// once has each connection ask once.
func (l *load) once() error {
	return l.each(func(_ int, c client) error { return c.get(l.paths[0], l.row.size) })
}

// each runs something on all connections at a time, and gives the first error.
func (l *load) each(run func(i int, c client) error) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	for i, c := range l.clients {
		wg.Go(func() {
			if err := run(i, c); err != nil {
				mu.Lock()
				defer mu.Unlock()
				if first == nil {
					first = fmt.Errorf("%s: %w", l.row, err)
				}
			}
		})
	}
	wg.Wait()
	return first
}

// flood asks again as soon as there is an answer, for a while, and counts.
func (l *load) flood(d time.Duration) (int, error) {
	end := time.Now().Add(d)
	counts := make([]int, len(l.clients))
	err := l.each(func(i int, c client) error {
		at := rand.IntN(len(l.paths))
		for time.Now().Before(end) {
			if err := c.get(l.paths[at], l.row.size); err != nil {
				return err
			}
			if at += 7; at >= len(l.paths) {
				at %= len(l.paths)
			}
			counts[i]++
		}
		return nil
	})
	total := 0
	for _, n := range counts {
		total += n
	}
	return total, err
}

// pace asks at a fixed rate, whatever the answers do, and gives the sorted times
// from when each request was due to its answer. Each connection has its own share
// of the rate, with exponential gaps.
func (l *load) pace(rate float64, d time.Duration) ([]time.Duration, error) {
	begin := time.Now()
	end := begin.Add(d)
	gap := float64(len(l.clients)) / rate * float64(time.Second)
	times := make([][]time.Duration, len(l.clients))
	err := l.each(func(i int, c client) error {
		at := rand.IntN(len(l.paths))
		for due := begin; ; {
			due = due.Add(time.Duration(rand.ExpFloat64() * gap))
			if due.After(end) {
				return nil
			}
			<-time.After(time.Until(due))
			if err := c.get(l.paths[at], l.row.size); err != nil {
				return err
			}
			at = (at + 7) % len(l.paths)
			times[i] = append(times[i], time.Since(due))
		}
	})
	all := slices.Concat(times...)
	slices.Sort(all)
	return all, err
}
