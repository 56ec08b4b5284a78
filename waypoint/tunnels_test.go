package waypoint

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/waypoint/internal/proxy"
)

// A tunnel beyond the handshakes that may be under way is dropped at once, and
// counted.
func TestHandshakesAreBounded(t *testing.T) {
	reg := prometheus.NewRegistry()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tn := &tunnels{
		listener: l, proxy: proxy.New(proxy.Config{Metrics: proxy.NewMetrics(reg)}), log: zap.NewNop(),
		handshakes: make(chan struct{}, 1), conns: make(map[*hbone.ServerConn]struct{}),
	}
	tn.handshakes <- struct{}{} // one that does not end
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tn.Run(ctx) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read %d bytes, %v", n, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(reg, "ambit_waypoint_streams_refused_total"); err != nil || n != 1 {
		t.Errorf("%d series, %v", n, err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() != "handshakes" || m.GetCounter().GetValue() != 1 {
				t.Errorf("%s: %v", f.GetName(), m)
			}
		}
	}
}

// Who has not heard that a waypoint leaves is served for the delay, and nobody after it.
func TestShutdownDelay(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const delay = 300 * time.Millisecond
	tn := &tunnels{
		listener: l, proxy: proxy.New(proxy.Config{Metrics: proxy.NewMetrics(prometheus.NewRegistry())}), log: zap.NewNop(), delay: delay,
		handshakes: make(chan struct{}, 1), conns: make(map[*hbone.ServerConn]struct{}),
	}
	tn.handshakes <- struct{}{} // so that who is taken sees the end at once
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tn.Run(ctx) }()
	began := time.Now()
	cancel()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < delay {
		t.Errorf("it was over after %s", took)
	}
	if late, err := net.Dial("tcp", l.Addr().String()); err == nil {
		_ = late.Close()
		t.Error("somebody was let in afterwards")
	}
}
