package proxy

import (
	"errors"
	"net"
	"sync"
	"syscall"

	"golang.org/x/net/ipv4"
)

// batchSize is how many datagrams are read or written by one system call.
const batchSize = 32

// batchBuffers are those of one read. Datagrams that are larger than smallest get
// another look, see readBatches.
type batchBuffers struct {
	msgs [batchSize]ipv4.Message
}

// maxDatagram is the largest UDP payload over IPv4 or IPv6.
const maxDatagram = 65535

var (
	manyPool = sync.Pool{New: func() any { return newBuffers(batchSize, 2048) }}
	onePool  = sync.Pool{New: func() any { b := make([]byte, maxDatagram); return &b }}
)

func newBuffers(n, size int) *batchBuffers {
	b := new(batchBuffers)
	all := make([]byte, n*size)
	for i := range n {
		b.msgs[i].Buffers = [][]byte{all[i*size : (i+1)*size : (i+1)*size], nil}
	}
	return b
}

// readBatches calls f for what a connected socket receives until it fails. An ICMP
// error in answer to something that was sent is returned, too.
func readBatches(c *net.UDPConn, f func(p []byte, more bool)) error {
	// recvmmsg does not care for the family; the package's name is of no importance.
	pc := ipv4.NewPacketConn(c)
	many, one := manyPool.Get().(*batchBuffers), onePool.Get().(*[]byte)
	defer manyPool.Put(many)
	defer onePool.Put(one)
	// What does not fit the small buffers goes on in the large one of the first
	// message; behind it the kernel is asked again.
	for i := range many.msgs {
		many.msgs[i].Buffers = many.msgs[i].Buffers[:1]
	}
	small := many.msgs[0].Buffers[0]
	many.msgs[0].Buffers = append(many.msgs[0].Buffers, *one)
	defer func() { many.msgs[0].Buffers = many.msgs[0].Buffers[:1] }()
	ask := batchSize
	for {
		n, err := pc.ReadBatch(many.msgs[:ask], 0)
		if err != nil {
			return err
		}
		large := false
		for i := range n {
			m := &many.msgs[i]
			if m.Flags&syscall.MSG_TRUNC != 0 {
				large = true // lost, as datagrams may be: the next ones come whole
				continue
			}
			if m.N <= len(small) {
				f(m.Buffers[0][:m.N], i < n-1)
				continue
			}
			// Only the first has room for more.
			whole := append(append(make([]byte, 0, m.N), small...), (*one)[:m.N-len(small)]...)
			f(whole, i < n-1)
			large = true
		}
		// A flow with datagrams that the small buffers cut gets one at a time.
		ask = batchSize
		if large {
			ask = 1
		}
	}
}

// isGone reports an ICMP error: nobody listens there now.
func isGone(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}
