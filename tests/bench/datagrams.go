package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
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

// batch is how many datagrams one system call takes.
const batch = 32

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

// datagrams sends from each socket without a pause, and counts what has arrived.
func (l *loader) datagrams(size int) func(context.Context) error {
	return func(context.Context) error {
		conns := make([]*net.UDPConn, l.conns)
		for i := range conns {
			c, err := net.Dial("udp", l.target)
			if err != nil {
				return err
			}
			defer c.Close()
			conns[i] = c.(*net.UDPConn)
			if _, err := arrived(conns[i]); err != nil { // sets the session up, too
				return err
			}
		}
		before, err := arrived(conns[0])
		if err != nil {
			return err
		}
		var sent atomic.Int64
		err = l.window(func() error {
			var wg sync.WaitGroup
			end := time.Now().Add(l.duration)
			for _, c := range conns {
				wg.Go(func() {
					pc, msgs := ipv4.NewPacketConn(c), messages(size)
					for time.Now().Before(end) {
						n, _ := pc.WriteBatch(msgs, 0)
						sent.Add(int64(n))
					}
				})
			}
			wg.Wait()
			return nil
		})
		if err != nil {
			return err
		}
		after, err := arrived(conns[0])
		if err != nil {
			return err
		}
		l.result.Ops, l.result.Bytes = int64(after-before), int64(after-before)*int64(size)
		if l.result.Ops == 0 {
			return fmt.Errorf("none of %d datagrams arrived", sent.Load())
		}
		return nil
	}
}

// arrived asks the server how many it has had.
func arrived(c *net.UDPConn) (uint64, error) {
	var err error
	buf := make([]byte, 64)
	for range 20 {
		if _, err = c.Write([]byte{kindCount}); err != nil && !strings.Contains(err.Error(), "refused") {
			return 0, err
		}
		_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		var n int
		if n, err = c.Read(buf); err == nil && n == 8 {
			return binary.BigEndian.Uint64(buf), nil
		}
	}
	return 0, fmt.Errorf("no answer to the count of datagrams: %w", err)
}
