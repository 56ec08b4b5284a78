package http2

import "sync"

// blockSize is the memory that a larger body is kept in, piece by piece.
const blockSize = 16 << 10

var blocks = sync.Pool{New: func() any { b := make([]byte, blockSize); return &b }}

// chunk is a piece of a body.
type chunk struct {
	data []byte
	pool *[]byte // where data lies when it is from blocks
}

// queue holds the bytes of a body that have come and were not read. Small bodies
// have memory of their own size; a trickle is collected, so that it does not
// become a long list.
type queue struct {
	chunks []chunk
	first  [1]chunk // most bodies need no more
	size   int
}

// write copies p to the end.
func (q *queue) write(p []byte) {
	q.size += len(p)
	last := 0
	if n := len(q.chunks); n > 0 {
		c := &q.chunks[n-1]
		m := min(len(p), cap(c.data)-len(c.data))
		c.data = append(c.data, p[:m]...)
		p = p[m:]
		last = cap(c.data)
	} else if q.chunks == nil {
		q.chunks = q.first[:0]
	}
	for len(p) > 0 {
		if room := max(len(p), min(2*last, blockSize)); room < blockSize/2 {
			q.chunks = append(q.chunks, chunk{data: append(make([]byte, 0, room), p...)})
			return
		}
		b := blocks.Get().(*[]byte)
		n := copy(*b, p)
		q.chunks = append(q.chunks, chunk{(*b)[:n], b})
		p = p[n:]
	}
}

// read takes bytes from the front.
func (q *queue) read(p []byte) (n int) {
	for n < len(p) && len(q.chunks) > 0 {
		c := &q.chunks[0]
		m := copy(p[n:], c.data)
		n += m
		if c.data = c.data[m:]; len(c.data) > 0 {
			break
		}
		q.shift()
	}
	q.size -= n
	return n
}

func (q *queue) shift() {
	c := &q.chunks[0]
	if c.pool != nil {
		blocks.Put(c.pool)
	}
	*c = chunk{}
	if q.chunks = q.chunks[1:]; len(q.chunks) == 0 {
		q.chunks = nil
	}
}

// drop empties the queue and gives what its size was.
func (q *queue) drop() int {
	n := q.size
	for len(q.chunks) > 0 {
		q.shift()
	}
	q.size = 0
	return n
}
