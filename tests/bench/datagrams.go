package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
)

const datagramPort = 7002

// Datagrams of the load begin with a kind. The server counts those of kindLoad, and
// answers one of kindCount with how many it has had.
const (
	kindLoad  = 'l'
	kindCount = 'c'
)

// batch is how many datagrams one system call takes, datagramWindow how many are on
// the way in loads that are paced.
const batch, datagramWindow = 32, 2048

// serveDatagrams counts until ctx ends.
func serveDatagrams(ctx context.Context) error {
	c, err := net.ListenUDP("udp", &net.UDPAddr{Port: datagramPort})
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { c.Close() })
	_ = c.SetReadBuffer(4 << 20)
	go func() {
		var total uint64
		pc, msgs := ipv4.NewPacketConn(c), messages(2048)
		for {
			n, err := pc.ReadBatch(msgs, 0)
			if err != nil {
				return
			}
			for i := range n {
				switch m := &msgs[i]; {
				case m.N > 0 && m.Buffers[0][0] == kindLoad:
					total++
				case m.N > 0:
					_, _ = c.WriteTo(binary.BigEndian.AppendUint64(nil, total), m.Addr)
				}
			}
		}
	}()
	return nil
}

func messages(size int) []ipv4.Message {
	msgs := make([]ipv4.Message, batch)
	for i := range msgs {
		msgs[i].Buffers = [][]byte{make([]byte, size)}
		msgs[i].Buffers[0][0] = kindLoad
	}
	return msgs
}

// datagrams sends from each socket and counts what has arrived: without a pause, or
// never more than window ahead of what the server has had, so that nothing is spent
// on datagrams that are lost.
func (l *loader) datagrams(size int, window int64) func(context.Context) error {
	return func(context.Context) error {
		conns := make([]*net.UDPConn, l.conns+1) // the last one asks
		for i := range conns {
			c, err := net.Dial("udp", l.target)
			if err != nil {
				return err
			}
			defer c.Close()
			conns[i] = c.(*net.UDPConn)
			if _, err := arrived(conns[i], time.Second); err != nil { // sets the session up, too
				return err
			}
		}
		asking := conns[l.conns]
		before, err := arrived(asking, time.Second)
		if err != nil {
			return err
		}
		g := &gate{window: window, base: before}
		g.more.L = &g.mu
		err = l.window(func() error {
			var wg sync.WaitGroup
			end := time.Now().Add(l.duration)
			for _, c := range conns[:l.conns] {
				wg.Go(func() {
					pc, msgs := ipv4.NewPacketConn(c), messages(size)
					for time.Now().Before(end) {
						g.pass(batch)
						n, _ := pc.WriteBatch(msgs, 0)
						g.sent(n)
					}
				})
			}
			if window > 0 {
				wg.Go(func() { g.watch(asking, end) })
			}
			wg.Wait()
			return nil
		})
		if err != nil {
			return err
		}
		after, err := arrived(asking, time.Second)
		if err != nil {
			return err
		}
		l.result.Ops, l.result.Bytes, l.result.Lost = int64(after-before), int64(after-before)*int64(size), g.total-int64(after-before)
		if l.result.Ops == 0 {
			return fmt.Errorf("none of %d datagrams arrived", g.total)
		}
		return nil
	}
}

// gate keeps senders from being too far ahead of the receiver.
type gate struct {
	window int64  // no bound if 0
	base   uint64 // what the server had had before

	mu    sync.Mutex
	more  sync.Cond
	total int64 // sent; guarded by mu
	done  int64 // arrived, or given up; guarded by mu
	over  bool  // guarded by mu
}

func (g *gate) pass(n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.window > 0 && !g.over && g.total-g.done+n > g.window {
		g.more.Wait()
	}
}

func (g *gate) sent(n int) {
	g.mu.Lock()
	g.total += int64(n)
	g.mu.Unlock()
}

// watch asks how many have arrived until end. What has not when nothing came for a
// while is lost.
func (g *gate) watch(c *net.UDPConn, end time.Time) {
	const patience = 20 * time.Millisecond
	var had, lost int64
	progress := time.Now()
	for time.Now().Before(end) {
		n, err := arrived(c, patience)
		now := time.Now()
		g.mu.Lock()
		if got := int64(n - g.base); err == nil && got > had {
			had, progress = got, now
		} else if now.Sub(progress) > patience {
			lost, progress = g.total-had, now
		}
		g.done = had + lost
		g.more.Broadcast()
		g.mu.Unlock()
		<-time.After(500 * time.Microsecond)
	}
	g.mu.Lock()
	g.over = true
	g.more.Broadcast()
	g.mu.Unlock()
}

// arrived asks the server how many it has had.
func arrived(c *net.UDPConn, patience time.Duration) (uint64, error) {
	var err error
	buf := make([]byte, 64)
	for range 20 {
		if _, err = c.Write([]byte{kindCount}); err != nil && !strings.Contains(err.Error(), "refused") {
			return 0, err
		}
		_ = c.SetReadDeadline(time.Now().Add(patience))
		var n int
		if n, err = c.Read(buf); err == nil && n == 8 {
			return binary.BigEndian.Uint64(buf), nil
		}
	}
	return 0, fmt.Errorf("no answer to the count of datagrams: %w", err)
}
