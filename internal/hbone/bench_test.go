package hbone_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// The benchmarks run the tunnel beside what it is compared with: no relay, a pair
// of TCP relays, and a pair of relays with one TLS connection for each stream. All
// of it is in this process, so cpu-ns/op is that of the whole chain.
//
//	go test -run - -bench . ./internal/hbone

// chains gives the address at which each kind of chain takes connections to target.
func chains(b *testing.B, target string) []struct{ name, addr string } {
	tn := newTunnel(b, hbone.Config{}, nil)
	relayB := listen(b, func(_ context.Context, c net.Conn) { relayTo(c, target, nil) })
	relayA := listen(b, func(_ context.Context, c net.Conn) { relayTo(c, relayB, nil) })
	tlsB := listen(b, func(_ context.Context, c net.Conn) { relayTo(tls.Server(c, tn.server), target, nil) })
	tlsA := listen(b, func(_ context.Context, c net.Conn) { relayTo(c, tlsB, tn.client) })
	return []struct{ name, addr string }{
		{"direct", target}, {"tcp-relays", relayA}, {"tls-relays", tlsA}, {"ambit", tn.proxy(b, target)},
	}
}

func relayTo(c net.Conn, addr string, cfg *tls.Config) {
	up, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer up.Close()
	if cfg != nil {
		up = tls.Client(up, cfg)
	}
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		_, _ = io.Copy(up, c)
		_ = up.(interface{ CloseWrite() error }).CloseWrite()
	}()
	_, _ = io.Copy(c, up)
	_ = c.(interface{ CloseWrite() error }).CloseWrite()
	wg.Wait()
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure runs f and reports the CPU time of the process for each of b.N.
func measure(b *testing.B, f func()) {
	b.ResetTimer()
	before := cpuTime()
	f()
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
}

func BenchmarkBulk(b *testing.B) {
	const block = 1 << 20
	sink := listen(b, func(_ context.Context, c net.Conn) {
		_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 256<<10))
		_, _ = c.Write([]byte{1})
	})
	for _, ch := range chains(b, sink) {
		b.Run(ch.name, func(b *testing.B) {
			c := dial(b, ch.addr)
			buf := make([]byte, block)
			b.SetBytes(block)
			measure(b, func() {
				for range b.N {
					if _, err := c.Write(buf); err != nil {
						b.Fatal(err)
					}
				}
				_ = c.CloseWrite()
				_, _ = io.ReadFull(c, make([]byte, 1))
			})
		})
	}
}

func BenchmarkBulk8(b *testing.B) {
	const block = 256 << 10
	sink := listen(b, func(_ context.Context, c net.Conn) {
		_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 256<<10))
		_, _ = c.Write([]byte{1})
	})
	for _, ch := range chains(b, sink) {
		b.Run(ch.name, func(b *testing.B) {
			b.SetBytes(8 * block)
			measure(b, func() {
				var wg sync.WaitGroup
				for range 8 {
					c := dial(b, ch.addr)
					wg.Add(1)
					go func() {
						defer wg.Done()
						buf := make([]byte, block)
						for range b.N {
							_, _ = c.Write(buf)
						}
						_ = c.CloseWrite()
						_, _ = io.ReadFull(c, make([]byte, 1))
					}()
				}
				wg.Wait()
			})
		})
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	server := echo(b)
	for _, ch := range chains(b, server) {
		b.Run(ch.name, func(b *testing.B) {
			c := dial(b, ch.addr)
			buf := make([]byte, 1024)
			measure(b, func() {
				for range b.N {
					_, _ = c.Write(buf)
					if _, err := io.ReadFull(c, buf); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

func BenchmarkRoundTrip64(b *testing.B) {
	server := echo(b)
	for _, ch := range chains(b, server) {
		b.Run(ch.name, func(b *testing.B) {
			var conns [64]net.Conn
			for i := range conns {
				conns[i] = dial(b, ch.addr)
			}
			measure(b, func() {
				var wg sync.WaitGroup
				for _, c := range conns {
					wg.Add(1)
					go func() {
						defer wg.Done()
						buf := make([]byte, 1024)
						for range b.N/len(conns) + 1 {
							_, _ = c.Write(buf)
							if _, err := io.ReadFull(c, buf); err != nil {
								b.Error(err)
								return
							}
						}
					}()
				}
				wg.Wait()
			})
		})
	}
}

func BenchmarkNewConnection(b *testing.B) {
	server := echo(b)
	for _, ch := range chains(b, server) {
		b.Run(ch.name, func(b *testing.B) {
			measure(b, func() {
				for range b.N {
					c, err := net.Dial("tcp", ch.addr)
					if err != nil {
						b.Fatal(err)
					}
					roundTrip(b, c)
					c.Close()
				}
			})
		})
	}
}
