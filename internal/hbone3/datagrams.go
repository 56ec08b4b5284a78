package hbone3

import (
	"context"
	"sync"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"

	"github.com/ambit-mesh/ambit/internal/identity"
)

const (
	// maxQueued bounds the payloads, in bytes, that wait on a connection, maxOfStream
	// those of one of its streams.
	maxQueued, maxOfStream = 4 << 20, 1 << 20
	// fewQueued is how many each stream may have waiting, whatever the others have.
	fewQueued = 32
	// maxEarly is how many are kept for streams that are not there yet: a server's is
	// there a moment after the client may send.
	maxEarly = 64
	// maxQuarter is the largest number of a stream, divided by four.
	maxQuarter = 1<<60 - 1
)

// datagrams sorts those of a connection by stream (RFC 9297 section 2.1). The library
// does it too, and drops without a word what is more than 32 for a stream: a burst of
// one application is more. It leaves it to us where both ends have said so
// (identity.DatagramProtocol).
type datagrams struct {
	conn    *quic.Conn
	dropped func() // may be nil

	mu     sync.Mutex
	queues map[uint64]*queue // guarded by mu
	early  []early           // guarded by mu
	size   int               // bytes in all queues; guarded by mu
}

// early is the payload of a stream that is not there yet.
type early struct {
	quarter uint64
	b       []byte
}

// queue are the payloads of a stream.
type queue struct {
	wire
	d       *datagrams
	quarter uint64
	more    chan struct{} // has one when something has come

	items [][]byte // guarded by d.mu
	size  int      // bytes; guarded by d.mu
	left  bool     // guarded by d.mu
}

// newDatagrams gives nil where the library has them.
func newDatagrams(conn *quic.Conn, dropped func()) *datagrams {
	if conn.ConnectionState().TLS.NegotiatedProtocol != identity.DatagramProtocol {
		return nil
	}
	return &datagrams{conn: conn, dropped: dropped, queues: make(map[uint64]*queue)}
}

// run sorts until the connection ends.
func (d *datagrams) run() {
	for {
		b, err := d.conn.ReceiveDatagram(context.Background())
		if err != nil {
			return
		}
		quarter, n, err := quicvarint.Parse(b)
		if err != nil || quarter > maxQuarter {
			_ = d.conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeDatagramError), "a datagram of no stream")
			return
		}
		if !d.sort(quarter, b[n:]) && d.dropped != nil {
			d.dropped()
		}
	}
}

// sort reports whether there was room.
func (d *datagrams) sort(quarter uint64, b []byte) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := d.queues[quarter]
	if q != nil {
		return q.addLocked(b)
	}
	if len(d.early) == maxEarly {
		d.early = append(d.early[:0], d.early[1:]...) // the oldest are of streams that have ended
	}
	d.early = append(d.early, early{quarter, b})
	return true
}

func (q *queue) addLocked(b []byte) bool {
	if q.left || len(q.items) >= fewQueued && (q.size+len(b) > maxOfStream || q.d.size+len(b) > maxQueued) {
		return false
	}
	q.items = append(q.items, b)
	q.size += len(b)
	q.d.size += len(b)
	select {
	case q.more <- struct{}{}:
	default:
	}
	return true
}

// join gives a stream its queue, until leave is called. Without any datagrams to sort
// it is the stream as the library has it.
func (d *datagrams) join(s wire, id quic.StreamID) (with wire, leave func()) {
	if d == nil {
		return s, func() {}
	}
	q := &queue{wire: s, d: d, quarter: uint64(id) / 4, more: make(chan struct{}, 1)}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queues[q.quarter] = q
	rest := d.early[:0]
	for _, e := range d.early {
		if e.quarter != q.quarter {
			rest = append(rest, e)
			continue
		}
		q.addLocked(e.b)
	}
	clear(d.early[len(rest):])
	d.early = rest
	return q, q.leave
}

func (q *queue) leave() {
	q.d.mu.Lock()
	defer q.d.mu.Unlock()
	if q.left {
		return
	}
	q.left = true
	q.d.size -= q.size
	q.items, q.size = nil, 0
	delete(q.d.queues, q.quarter)
}

// ReceiveDatagram is that of the library's streams: what is there, or what comes
// before ctx ends.
func (q *queue) ReceiveDatagram(ctx context.Context) ([]byte, error) {
	for {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		if b := q.take(); b != nil {
			return b, nil
		}
		select {
		case <-q.more:
		case <-ctx.Done():
			if b := q.take(); b != nil {
				return b, nil
			}
			return nil, context.Cause(ctx)
		}
	}
}

func (q *queue) take() []byte {
	q.d.mu.Lock()
	defer q.d.mu.Unlock()
	if len(q.items) == 0 {
		return nil
	}
	b := q.items[0]
	q.items[0] = nil
	q.items = q.items[1:]
	q.size -= len(b)
	q.d.size -= len(b)
	return b
}
