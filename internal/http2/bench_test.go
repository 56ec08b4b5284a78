package http2_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/http2"
	"github.com/ambit-mesh/ambit/internal/message"
)

// The benchmarks run our ends beside those of the general stack. Client and server
// are in this process, so cpu-ns/op is that of both.
//
//	go test -run - -bench . ./internal/http2

const small = "an answer of some hundred bytes, as services that talk to each other give; it is neither large nor nothing at all......"

var benchFields = fields("content-type", "application/json", "server", "shop", "x-request-id", "af3ce6b0-1c35-44a7-9df5-3e2d5d6bb1a3")

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// trip is one exchange with a server under benchmark.
type trip func() error

func oursToServer(b *testing.B, nc net.Conn) trip {
	cc := http2.NewClientConn(nc, http2.Config{})
	newRunner(b).run(cc.Run)
	return func() error {
		req := &message.Request{Method: "GET", Scheme: "http", Authority: "shop:80", Path: "/cart/items", Version: message.HTTP2}
		req.Fields = fields("user-agent", "bench/1.0", "accept", "application/json", "x-request-id", "af3ce6b0-1c35-44a7-9df5-3e2d5d6bb1a3")
		resp, err := cc.RoundTrip(context.Background(), req, nil)
		if err != nil {
			return err
		}
		var p [256]byte
		for {
			if _, err := resp.Body.Read(p[:]); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
}

func oursServes(b *testing.B, nc net.Conn) {
	newRunner(b).run(http2.NewServerConn(nc, http2.Config{}, message.HandlerFunc(func(_ context.Context, _ *message.Request, w message.Responder) {
		_ = w.Respond(&message.Response{Status: 200, Fields: benchFields, ContentLength: int64(len(small))})
		_, _ = w.Write([]byte(small))
		_ = w.End(nil)
	})).Run)
}

func BenchmarkUnary(b *testing.B) {
	for _, wire := range []struct {
		name string
		pair func(testing.TB) (net.Conn, net.Conn)
	}{{"tcp", tcpPair}, {"pipe", bufferedPipe}} {
		for _, ends := range []struct {
			name   string
			client func(*testing.B, net.Conn) trip
			server func(*testing.B, net.Conn)
		}{
			{"ours", oursToServer, oursServes},
			{"general-client", theirsToServer, oursServes},
			{"general-server", oursToServer, theirsServes},
			{"general", theirsToServer, theirsServes},
		} {
			for _, streams := range []int{1, 64} {
				b.Run(fmt.Sprintf("%s/%s/%d", wire.name, ends.name, streams), func(b *testing.B) {
					c, s := wire.pair(b)
					writes := &atomic.Int64{}
					ends.server(b, counted{s, writes})
					exchange(b, ends.client(b, c), streams)
					b.ReportMetric(float64(writes.Load())/float64(b.N), "server-writes/op")
				})
			}
		}
	}
}

// counted counts what a server writes.
type counted struct {
	net.Conn
	writes *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// exchange does b.N trips, so many at a time.
func exchange(b *testing.B, trip trip, streams int) {
	b.Helper()
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for range streams {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := trip(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
}

// BenchmarkProxy has both of our ends, or both of theirs, between a client and a
// server that are ours.
func BenchmarkProxy(b *testing.B) {
	for _, streams := range []int{1, 64} {
		b.Run(fmt.Sprintf("ours/%d", streams), func(b *testing.B) {
			c1, s1 := tcpPair(b)
			c2, s2 := tcpPair(b)
			oursServes(b, s2)
			up := http2.NewClientConn(c2, http2.Config{})
			r := newRunner(b)
			r.run(up.Run)
			r.run(http2.NewServerConn(s1, http2.Config{}, forward(up)).Run)
			exchange(b, oursToServer(b, c1), streams)
		})
	}
}

func BenchmarkBulk(b *testing.B) {
	const size = 1 << 20
	c, s := tcpPair(b)
	newRunner(b).run(http2.NewServerConn(s, http2.Config{}, message.HandlerFunc(func(_ context.Context, _ *message.Request, w message.Responder) {
		_ = w.Respond(&message.Response{Status: 200, ContentLength: size})
		p := make([]byte, 32<<10)
		for range size / len(p) {
			_, _ = w.Write(p)
		}
		_ = w.End(nil)
	})).Run)
	cc := http2.NewClientConn(c, http2.Config{})
	newRunner(b).run(cc.Run)
	p := make([]byte, 64<<10)
	b.SetBytes(size)
	b.ReportAllocs()
	before := cpuTime()
	for b.Loop() {
		resp, err := cc.RoundTrip(context.Background(), get("/"), nil)
		if err != nil {
			b.Fatal(err)
		}
		for err == nil {
			_, err = resp.Body.Read(p)
		}
	}
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
}
