package proxy

import (
	"net"
	"sync"
	"sync/atomic"

	"github.com/ambit-mesh/ambit/internal/tunnel"
)

// asItIs carries datagrams to what is not in the mesh.
type asItIs struct{ c *net.UDPConn }

// Send implements tunnel.Packets.
func (o *asItIs) Send(p []byte, _ bool) error {
	_, err := o.c.Write(p)
	if isGone(err) {
		return nil // told by the next receive too, or passing
	}
	return err
}

// Receive implements tunnel.Packets.
func (o *asItIs) Receive(f func(p []byte, more bool)) error { return readBatches(o.c, f) }

// Close implements tunnel.Packets.
func (o *asItIs) Close(bool) { _ = o.c.Close() }

// guarded lets several goroutines send.
type guarded struct {
	tunnel.Packets
	mu sync.Mutex
	n  atomic.Int64
}

// Send implements tunnel.Packets.
func (g *guarded) Send(p []byte, more bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n.Add(int64(len(p)))
	return g.Packets.Send(p, more)
}
