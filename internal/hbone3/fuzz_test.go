package hbone3

import (
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

// Whatever comes as datagrams, in whatever order streams come and go: what is held
// stays within bounds, is counted right, and is what was sent.
func FuzzDatagrams(f *testing.F) {
	f.Add([]byte{1, 0, 'a'}, uint8(0))
	f.Add([]byte{8, 0x40, 0x19, 'x', 'y', 2, 0x3f, 'z', 1, 0xff}, uint8(5))
	f.Fuzz(func(t *testing.T, wire []byte, joins uint8) {
		d := &datagrams{queues: make(map[uint64]*queue)}
		var leaves []func()
		for n := 0; len(wire) > 0; n++ {
			if n%3 == 0 && int(joins) > len(leaves) {
				_, leave := d.join(nil, quic.StreamID(4*len(leaves)))
				leaves = append(leaves, leave)
			}
			size := min(int(wire[0])*200, len(wire)-1)
			b := wire[1 : 1+size]
			wire = wire[1+size:]
			if quarter, m, err := quicvarint.Parse(b); err == nil && quarter <= maxQuarter {
				d.sort(quarter, b[m:])
			}
			held := 0
			for _, q := range d.queues {
				sum := 0
				for _, p := range q.items {
					sum += len(p)
				}
				if sum != q.size || len(q.items) > fewQueued && q.size > maxOfStream {
					t.Fatalf("%d bytes are held, %d counted", sum, q.size)
				}
				held += sum
			}
			if held != d.size || len(d.early) > maxEarly {
				t.Fatalf("%d bytes are held, %d counted; %d early", held, d.size, len(d.early))
			}
		}
		for _, leave := range leaves {
			leave()
			leave()
		}
		if d.size != 0 || len(d.queues) != 0 {
			t.Fatalf("%d bytes left", d.size)
		}
	})
}
