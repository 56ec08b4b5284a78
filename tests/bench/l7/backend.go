package l7

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/http2"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/message"
)

// backends answer behind both proxies with the same code: at the end of a tunnel,
// or of a TLS connection.
type backends struct {
	bodies map[int][]byte
	first  map[int][]byte // whole HTTP/1.1 answers
	wg     sync.WaitGroup
	stops  []func()
}

func startBackends(ctx context.Context, a *authority) (*backends, error) {
	b := &backends{bodies: make(map[int][]byte), first: make(map[int][]byte)}
	for _, size := range sizes {
		body := bytes.Repeat([]byte("0123456789abcdef"), size/16)
		b.bodies[size] = body
		b.first[size] = append([]byte("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: "+strconv.Itoa(size)+"\r\n\r\n"), body...)
	}
	ctx, cancel := context.WithCancel(ctx)
	b.stops = append(b.stops, cancel)
	for i, host := range backendHosts {
		cert, _, err := a.issue(account(backendNames[i]))
		if err != nil {
			return b, err
		}
		cfg := identity.ServerConfig(func() (*identity.Certificate, error) { return cert, nil })
		err = errors.Join(
			b.listen(host, hbonePort, func(c net.Conn) { b.tunnel(ctx, c, cfg) }),
			b.listen(host, secureHTTP1, func(c net.Conn) { b.serveHTTP1(tls.Server(c, secure(cfg, "http/1.1"))) }),
			b.listen(host, secureHTTP2, func(c net.Conn) { b.serveHTTP2(ctx, tls.Server(c, secure(cfg, "h2"))) }),
		)
		if err != nil {
			return b, err
		}
	}
	return b, nil
}

// secure is a configuration of the mesh for another protocol than HBONE.
func secure(cfg *tls.Config, alpn string) *tls.Config {
	if cfg.GetConfigForClient == nil {
		c := cfg.Clone()
		c.NextProtos = []string{alpn}
		return c
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		c, err := cfg.GetConfigForClient(h)
		if c != nil {
			c.NextProtos = []string{alpn}
		}
		return c, err
	}}
}

func (b *backends) listen(host netip.Addr, port uint16, serve func(net.Conn)) error {
	l, err := net.Listen("tcp", netip.AddrPortFrom(host, port).String())
	if err != nil {
		return err
	}
	b.stops = append(b.stops, func() { _ = l.Close() })
	b.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	})
	return nil
}

func (b *backends) stop() {
	for _, stop := range b.stops {
		stop()
	}
	b.wg.Wait()
}

// tunnel terminates HBONE as a destination's proxy does.
func (b *backends) tunnel(ctx context.Context, sock net.Conn, cfg *tls.Config) {
	sc, err := hbone.NewServerConn(ctx, sock, cfg, hbone.Config{}, func(ctx context.Context, in *hbone.Incoming) {
		s, err := in.Accept()
		if err != nil {
			return
		}
		conn := s.Conn(in.LocalAddr, in.RemoteAddr)
		if strings.HasSuffix(in.Authority, ":"+strconv.Itoa(plainHTTP2)) {
			b.serveHTTP2(ctx, conn)
		} else {
			b.serveHTTP1(conn)
		}
	})
	if err == nil {
		_ = sc.Run(ctx)
	}
}

// sizeOf tells from a path which body is wanted: it ends in the size in KB.
func sizeOf(path string) int {
	kb, _ := strconv.Atoi(path[strings.LastIndexByte(path, '/')+1:])
	return kb << 10
}

// serveHTTP1 answers requests without a body; clients of the benchmark send no
// others.
func (b *backends) serveHTTP1(c net.Conn) {
	defer c.Close()
	in := bufio.NewReaderSize(c, 4096)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		_, rest, _ := bytes.Cut(line, []byte(" "))
		path, _, _ := bytes.Cut(rest, []byte(" "))
		size := sizeOf(string(path))
		for len(line) > 2 {
			if line, err = in.ReadSlice('\n'); err != nil {
				return
			}
		}
		if _, err := c.Write(b.first[size]); err != nil {
			return
		}
	}
}

func (b *backends) serveHTTP2(ctx context.Context, c net.Conn) {
	handler := message.HandlerFunc(func(_ context.Context, req *message.Request, w message.Responder) {
		body := b.bodies[sizeOf(req.Path)]
		resp := &message.Response{Status: 200, Fields: message.Fields{{Name: "content-type", Value: "text/plain"}}, ContentLength: int64(len(body))}
		if w.Respond(resp) != nil {
			return
		}
		if _, err := w.Write(body); err != nil && !errors.Is(err, io.EOF) {
			return
		}
		_ = w.End(nil)
	})
	_ = http2.NewServerConn(c, http2.Config{MaxStreams: 1000}, handler).Run(ctx)
}
