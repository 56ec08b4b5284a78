package tunnel

import (
	"errors"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/masque"
)

// Packets is a way for the datagrams of one session. Send and Receive are each for one
// goroutine at a time; Close may be called by any, and ends Receive.
type Packets interface {
	// Send takes a datagram; more says that others follow at once. nil is none, and
	// sends what has waited for others. A *hbone3.TooLargeError is of the datagram alone.
	Send(p []byte, more bool) error
	// Receive calls f for each datagram until the way ends; nil when the peer ended
	// it. p is valid until f returns; it is nil where there is nothing but that no
	// other follows, after all.
	Receive(f func(p []byte, more bool)) error
	// Close ends the way: Receive returns.
	Close(orderly bool)
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

// Send implements Packets.
func (o *overQUIC) Send(p []byte, more bool) error {
	if !o.batch {
		if p == nil {
			return nil
		}
		return o.s.SendPayload(masque.AppendUDP(make([]byte, 0, len(p)+1), p))
	}
	var err error
	if p != nil && !o.b.Add(p, roomFor) {
		err = o.flush()
		o.b.Add(p, roomFor)
	}
	if !more {
		err = errors.Join(err, o.flush())
	}
	return err
}

func (o *overQUIC) flush() error {
	if o.b.Len() == 0 {
		return nil
	}
	return o.s.SendPayload(o.b.Take())
}

// Receive implements Packets.
func (o *overQUIC) Receive(f func(p []byte, more bool)) error {
	return o.s.ReceivePayloads(func(b []byte, more bool) error { return masque.EachMore(b, more, f) })
}

// Close implements Packets.
func (o *overQUIC) Close(orderly bool) {
	if orderly {
		o.s.Close()
		return
	}
	o.s.Reset(hbone.CodeCancel)
}

// overHTTP2 carries datagrams in capsules, where QUIC does not get through.
type overHTTP2 struct {
	s *hbone.StreamConn
	*masque.Stream
}

func newOverHTTP2(s *hbone.StreamConn) *overHTTP2 { return &overHTTP2{s, masque.NewStream(s)} }

// Close implements Packets.
func (o *overHTTP2) Close(orderly bool) {
	if !orderly {
		_ = o.s.Reset()
		return
	}
	_ = o.s.Close()
}
