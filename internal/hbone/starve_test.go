package hbone_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// Readers that were fast for long, so that their windows have grown, and then stop,
// hold up nobody who shares the tunnel connection with them, however many they are.
func TestReadersThatStopStarveNobody(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, nil)
	source := listen(t, func(_ context.Context, c net.Conn) {
		for buf := make([]byte, 64<<10); ; {
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	})
	proxy := tn.proxy(t, source)
	read := func(c net.Conn, n int64) {
		t.Helper()
		_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
		if _, err := io.CopyN(io.Discard, c, n); err != nil {
			t.Fatal(err)
		}
	}
	var stopped []net.Conn
	for range 60 {
		c := dial(t, proxy)
		read(c, 4<<20)
		stopped = append(stopped, c)
	}
	read(dial(t, proxy), 64<<20)
	for _, c := range stopped {
		read(c, 8<<20) // one after the other, so that each depends on the others' leaving room
	}
}
