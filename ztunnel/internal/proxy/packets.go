package proxy

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/masque"
)

// packets is a way for the datagrams of one session.
type packets interface {
	// send takes a datagram; more says that others follow at once. It is called by
	// one goroutine at a time.
	send(p []byte, more bool) error
	// receive calls f for each datagram until the way ends; nil when the peer ended
	// it. p is valid until f returns; it is nil where there is nothing but that no
	// other follows, after all.
	receive(f func(p []byte, more bool)) error
	// close ends the way: receive returns.
	close(orderly bool)
}

// roomFor is how large a payload of several datagrams becomes: what paths of
// 1400 bytes take.
const roomFor = 1280

// overQUIC carries datagrams in HTTP datagrams.
type overQUIC struct {
	s     *hbone3.Stream
	batch bool // the peer reads payloads of several
	b     masque.Batch
}

func (o *overQUIC) send(p []byte, more bool) error {
	if !o.batch {
		return o.s.SendPayload(masque.AppendUDP(make([]byte, 0, len(p)+1), p))
	}
	var err error
	if !o.b.Add(p, roomFor) {
		err = o.flush()
		o.b.Add(p, roomFor)
	}
	if !more {
		err = errors.Join(err, o.flush())
	}
	return err
}

func (o *overQUIC) flush() error { return o.s.SendPayload(o.b.Take()) }

func (o *overQUIC) receive(f func(p []byte, more bool)) error {
	return o.s.ReceivePayloads(func(b []byte, more bool) error { return masque.EachMore(b, more, f) })
}

func (o *overQUIC) close(orderly bool) {
	if orderly {
		o.s.End()
	}
	o.s.Reset(hbone.CodeCancel)
}

// overHTTP2 carries datagrams in capsules, where QUIC does not get through.
type overHTTP2 struct {
	s *hbone.StreamConn
	*masque.Stream
}

func newOverHTTP2(s *hbone.StreamConn) *overHTTP2 { return &overHTTP2{s, masque.NewStream(s)} }

func (o *overHTTP2) send(p []byte, more bool) error            { return o.Send(p, more) }
func (o *overHTTP2) receive(f func(p []byte, more bool)) error { return o.Receive(f) }
func (o *overHTTP2) close(bool)                                { _ = o.s.Close() }

// asItIs carries datagrams to what is not in the mesh.
type asItIs struct{ c *net.UDPConn }

func (o *asItIs) send(p []byte, _ bool) error {
	_, err := o.c.Write(p)
	if isGone(err) {
		return nil // told by the next receive too, or passing
	}
	return err
}

func (o *asItIs) receive(f func(p []byte, more bool)) error { return readBatches(o.c, f) }
func (o *asItIs) close(bool)                                { _ = o.c.Close() }

// guarded lets several goroutines send.
type guarded struct {
	packets
	mu sync.Mutex
	n  atomic.Int64
}

func (g *guarded) send(p []byte, more bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n.Add(int64(len(p)))
	return g.packets.send(p, more)
}
