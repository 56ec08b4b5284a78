package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// settings of the server.
type settings struct {
	http, tls, grpc, tcp, udp []int
	cert, key                 string
	version, host             string
	count                     *counter
}

func serve(ctx context.Context, args []string, log io.Writer) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	s := settings{host: host, count: &counter{seen: map[string]int{}}}
	f := pflag.NewFlagSet("server", pflag.ContinueOnError)
	f.IntSliceVar(&s.http, "port", []int{8080}, "ports for HTTP/1.1 and HTTP/2 without TLS")
	f.IntSliceVar(&s.tls, "tls", nil, "those of --port that have TLS")
	f.IntSliceVar(&s.grpc, "grpc", nil, "ports for gRPC, and for OTLP: a span is counted as a request of the key SERVICE/NAME")
	f.IntSliceVar(&s.tcp, "tcp", nil, "ports that send a line with the name of the server, then whatever they get")
	f.IntSliceVar(&s.udp, "udp", nil, "ports that answer a datagram with the name of the server and what it said")
	f.StringVar(&s.cert, "crt", "", "certificate for TLS; one of its own without the file")
	f.StringVar(&s.key, "key", "", "its key")
	f.StringVar(&s.version, "version", os.Getenv("VERSION"), "version that answers name")
	if err := f.Parse(args); err != nil {
		return err
	}
	return s.run(ctx, log)
}

// run serves until ctx ends.
func (s settings) run(ctx context.Context, log io.Writer) error {
	g, ctx := errgroup.WithContext(ctx)
	start := func(port int, serve func(net.Listener) error) error {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("", strconv.Itoa(port)))
		if err != nil {
			return err
		}
		fmt.Fprintln(log, "listening on", l.Addr())
		g.Go(func() error { return serve(l) })
		return nil
	}
	for _, p := range s.http {
		if err := start(p, func(l net.Listener) error { return s.serveHTTP(ctx, l, p) }); err != nil {
			return err
		}
	}
	for _, p := range s.grpc {
		if err := start(p, func(l net.Listener) error { return s.serveGRPC(ctx, l, p) }); err != nil {
			return err
		}
	}
	for _, p := range s.tcp {
		if err := start(p, func(l net.Listener) error { return s.serveTCP(ctx, l) }); err != nil {
			return err
		}
	}
	for _, p := range s.udp {
		conn, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", net.JoinHostPort("", strconv.Itoa(p)))
		if err != nil {
			return err
		}
		fmt.Fprintln(log, "listening on", conn.LocalAddr())
		g.Go(func() error { return s.serveUDP(ctx, conn) })
	}
	return g.Wait()
}

func (s settings) serveHTTP(ctx context.Context, l net.Listener, port int) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{Handler: s.handler(port), Protocols: protocols, ReadHeaderTimeout: 10 * time.Second}
	// What has been begun is answered.
	ended := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { ended <- srv.Shutdown(context.WithoutCancel(ctx)) })
	defer stop()
	var err error
	if slices.Contains(s.tls, port) {
		if srv.TLSConfig, err = s.tlsConfig(); err != nil {
			return err
		}
		err = srv.ServeTLS(l, "", "")
	} else {
		err = srv.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return <-ended
	}
	return err
}

// counter counts the requests that have the same key.
type counter struct {
	mu   sync.Mutex
	seen map[string]int // guarded by mu
}

func (c *counter) add(key string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[key]++
	return c.seen[key]
}

// handler answers with what it sees of the request. The query decides about the answer: status is its code, of the first
// requests with the same key alone if there is first=N.
func (s settings) handler(port int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		from, _, _ := net.SplitHostPort(r.RemoteAddr)
		w.Header().Set("Content-Type", "text/plain")
		q := r.URL.Query()
		seen := 0
		if key := q.Get("key"); key != "" {
			seen = s.count.add(key)
		}
		first, err := strconv.Atoi(q.Get("first"))
		fails := err != nil || seen <= first
		if status, err := strconv.Atoi(q.Get("status")); err == nil && fails && status >= 200 && status < 600 {
			w.WriteHeader(status)
		}
		out := s.common(port, from)
		if seen > 0 {
			out = append(out, "Seen="+strconv.Itoa(seen))
		}
		out = append(out, "Host="+r.Host, "URL="+r.URL.RequestURI(), "Method="+r.Method, "Proto="+r.Proto)
		for _, name := range names(r.Header) {
			for _, v := range r.Header[name] {
				out = append(out, "RequestHeader="+name+":"+v)
			}
		}
		fmt.Fprintln(w, strings.Join(out, "\n"))
	})
}

// common are the fields that every answer has.
func (s settings) common(port int, from string) []string {
	return []string{"ServiceVersion=" + s.version, "ServicePort=" + strconv.Itoa(port), "Hostname=" + s.host, "IP=" + from}
}

func names(h map[string][]string) []string {
	all := make([]string, 0, len(h))
	for n := range h {
		all = append(all, n)
	}
	slices.Sort(all)
	return all
}

func (s settings) serveGRPC(ctx context.Context, l net.Listener, port int) error {
	srv := grpc.NewServer()
	srv.RegisterService(&service, answer(func(ctx context.Context) []string { return s.seen(ctx, port) }))
	collectorpb.RegisterTraceServiceServer(srv, &collector{count: s.count})
	stop := context.AfterFunc(ctx, srv.Stop)
	defer stop()
	return srv.Serve(l)
}

// serveTCP speaks first, and then gives back what it gets.
func (s settings) serveTCP(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		go func() {
			defer conn.Close()
			from, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
			if _, err := fmt.Fprintf(conn, "Hostname=%s IP=%s\n", s.host, from); err == nil {
				_, _ = io.Copy(conn, conn)
			}
		}()
	}
}

// serveUDP answers each datagram.
func (s settings) serveUDP(ctx context.Context, conn net.PacketConn) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	buf := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		host, _, _ := net.SplitHostPort(from.String())
		_, _ = conn.WriteTo(fmt.Appendf(nil, "Hostname=%s IP=%s\n%s", s.host, host, buf[:n]), from)
	}
}

// tlsConfig has the certificate of the flags or, where the image has no such file, one made now.
func (s settings) tlsConfig() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(s.cert, s.key)
	if errors.Is(err, os.ErrNotExist) {
		cert, err = selfSigned(s.host)
	}
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, nil
}

func selfSigned(host string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	t := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{host, "echo"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * 365 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
