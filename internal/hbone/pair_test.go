package hbone_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tunnel is a server that connects every stream to its authority, and a pool that
// reaches it.
type tunnel struct {
	ca     *testkit.CA
	addr   string
	server *tls.Config
	client *tls.Config
	pool   *hbone.Pool[string]
	conns  chan *hbone.ServerConn
}

func connectHandler(_ context.Context, in *hbone.Incoming) {
	app, err := net.Dial("tcp", in.Authority)
	if err != nil {
		in.Refuse(503, hbone.ProxyStatus("connection_refused", err.Error()))
		return
	}
	defer app.Close()
	s, err := in.Accept()
	if err != nil {
		return
	}
	_ = s.Splice(app)
}

func newTunnel(t testing.TB, cfg hbone.Config, h hbone.Handler) *tunnel {
	t.Helper()
	ca := testkit.NewCA(t)
	server := ca.Workload("shop", "server")
	tn := &tunnel{ca: ca, server: identity.ServerConfig(func() (*identity.Certificate, error) { return server, nil }), conns: make(chan *hbone.ServerConn, 64)}
	var err error
	if tn.client, err = ca.Workload("shop", "client").ClientConfig(server.ID); err != nil {
		t.Fatal(err)
	}
	if h == nil {
		h = connectHandler
	}
	tn.addr = listen(t, func(ctx context.Context, c net.Conn) {
		sc, err := hbone.NewServerConn(ctx, c, tn.server, cfg, h)
		if err != nil {
			return
		}
		select {
		case tn.conns <- sc:
		default:
		}
		_ = sc.Run(ctx)
	})
	tn.pool = hbone.NewPool(func(ctx context.Context, addr string) (*hbone.ClientConn, error) {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return nil, err
		}
		return hbone.NewClientConn(ctx, c, tn.client, cfg)
	}, nil)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		tn.pool.Drain(ctx)
	})
	return tn
}

// listen serves each connection in a goroutine and ends them with the test.
func listen(t testing.TB, serve func(context.Context, net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	running := make(chan struct{}, 1<<16)
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running <- struct{}{}
			go func() {
				defer func() { <-running }()
				defer c.Close()
				stop := context.AfterFunc(ctx, func() { c.Close() })
				defer stop()
				serve(ctx, c)
			}()
		}
	}()
	t.Cleanup(func() {
		cancel()
		l.Close()
		<-ended
		testkit.Until(t, "connections of a test listener end", func() bool { return len(running) == 0 })
	})
	return l.Addr().String()
}

// proxy listens as a captured application's outbound listener does, and tunnels
// each connection to the authority.
func (tn *tunnel) proxy(t testing.TB, authority string) string {
	return listen(t, func(ctx context.Context, c net.Conn) {
		s, _, _, err := tn.pool.Open(ctx, tn.addr, hbone.Request{Authority: authority})
		if err != nil {
			return
		}
		_ = s.Splice(c)
	})
}

func echo(t testing.TB) string {
	return listen(t, func(_ context.Context, c net.Conn) {
		_, _ = io.Copy(c, c)
		_ = c.(*net.TCPConn).CloseWrite()
	})
}

func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}
