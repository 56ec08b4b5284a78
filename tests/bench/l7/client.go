package l7

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"

	"github.com/ambit-mesh/ambit/internal/h2wire"
)

// client is a connection with one request at a time. It knows just enough of HTTP
// to tell a right answer from a wrong one, so that it costs little.
type client interface {
	// get asks for a path and reads the answer, whose body must have size bytes.
	get(path string, size int) error
	io.Closer
}

func newClient(proto, scheme string, c net.Conn) client {
	if proto == http1Row {
		return &client1{Conn: c, in: bufio.NewReaderSize(c, 16<<10)}
	}
	h := &client2{Conn: c, in: bufio.NewReaderSize(c, 16<<10), scheme: scheme, next: 1}
	h.out = append(h.out, h2wire.Preface...)
	h.out = h2wire.AppendSettings(h.out, h2wire.Setting{ID: h2wire.SettingEnablePush, Value: 0}, h2wire.Setting{ID: h2wire.SettingInitialWindowSize, Value: 1 << 20})
	h.out = h2wire.AppendWindowUpdate(h.out, 0, 1<<30)
	return h
}

// client1 speaks HTTP/1.1.
type client1 struct {
	net.Conn
	in  *bufio.Reader
	out []byte
}

func (c *client1) get(path string, size int) error {
	c.out = append(c.out[:0], "GET "...)
	c.out = append(c.out, path...)
	c.out = append(c.out, " HTTP/1.1\r\nhost: web.app.svc.cluster.local\r\nuser-agent: bench\r\n"+matchHeader+": "+matchValue+"\r\n\r\n"...)
	if _, err := c.Write(c.out); err != nil {
		return err
	}
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("answer %q", line)
	}
	length := -1
	for len(line) > 2 {
		if line, err = c.in.ReadSlice('\n'); err != nil {
			return err
		}
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && bytes.EqualFold(name, []byte("content-length")) {
			length, _ = strconv.Atoi(string(bytes.TrimSpace(value)))
		}
	}
	if length != size {
		return fmt.Errorf("content-length %d, want %d", length, size)
	}
	_, err = c.in.Discard(size)
	return err
}

// client2 speaks HTTP/2, one stream after the other.
type client2 struct {
	net.Conn
	in     *bufio.Reader
	out    []byte // not yet sent
	scheme string
	next   uint32
	taken  int // bytes since the last window update
}

// literal appends a field that is not put into the table (RFC 7541 section 6.2.2),
// named by its index in the static table, or by name when that is 0.
func literal(b []byte, index byte, name, value string) []byte {
	b = append(b, index)
	if index == 0 {
		b = append(append(b, byte(len(name))), name...)
	}
	return append(append(b, byte(len(value))), value...)
}

func (c *client2) get(path string, size int) error {
	id := c.next
	c.next += 2
	at := len(c.out)
	c.out = append(c.out, make([]byte, h2wire.FrameHeaderLen)...)
	scheme := byte(0x86) // http
	if c.scheme == "https" {
		scheme = 0x87
	}
	c.out = append(c.out, 0x82, scheme) // GET
	c.out = literal(c.out, 4, "", path)
	c.out = literal(c.out, 1, "", "web.app.svc.cluster.local")
	c.out = literal(c.out, 0, "user-agent", "bench")
	c.out = literal(c.out, 0, matchHeader, matchValue)
	h2wire.PutFrameHeader(c.out[at:], h2wire.FrameHeader{
		Length: len(c.out) - at - h2wire.FrameHeaderLen, Type: h2wire.FrameHeaders, Flags: h2wire.FlagEndHeaders | h2wire.FlagEndStream, Stream: id,
	})
	if err := c.flush(); err != nil {
		return err
	}
	return c.await(id, size)
}

func (c *client2) flush() error {
	_, err := c.Write(c.out)
	c.out = c.out[:0]
	return err
}

// windowStep is how much is taken before it is given back.
const windowStep = 512 << 10

// await reads to the end of a stream.
func (c *client2) await(id uint32, size int) error {
	got := 0
	for {
		head, err := c.in.Peek(h2wire.FrameHeaderLen)
		if err != nil {
			return err
		}
		h := h2wire.ParseFrameHeader(head)
		_, _ = c.in.Discard(h2wire.FrameHeaderLen)
		if h.Type == h2wire.FrameData {
			got += h.Length
			c.taken += h.Length
		} else if err := c.control(h); err != nil {
			return err
		}
		if _, err := c.in.Discard(h.Length); err != nil {
			return err
		}
		if c.taken > windowStep {
			c.out = h2wire.AppendWindowUpdate(c.out, 0, c.taken)
			c.taken = 0
		}
		if h.Stream == id && h.Type <= h2wire.FrameHeaders && h.Flags&h2wire.FlagEndStream != 0 {
			break
		}
	}
	if got != size {
		return fmt.Errorf("body of %d bytes, want %d", got, size)
	}
	return nil
}

// control looks at a frame that is not data; its payload is still to be read.
func (c *client2) control(h h2wire.FrameHeader) error {
	ack := h.Flags&h2wire.FlagAck != 0
	switch h.Type {
	case h2wire.FrameHeaders:
		// 0x88 is :status 200; 001xxxxx before it changes the size of the table.
		if first, err := c.in.Peek(1); err != nil || first[0] != 0x88 && first[0]>>5 != 1 {
			return fmt.Errorf("answer is not 200: %x, %w", first, err)
		}
	case h2wire.FrameSettings:
		if !ack {
			c.out = h2wire.AppendFrameHeader(c.out, h2wire.FrameHeader{Type: h2wire.FrameSettings, Flags: h2wire.FlagAck})
		}
	case h2wire.FramePing:
		data, err := c.in.Peek(8)
		if err == nil && !ack {
			c.out = h2wire.AppendPing(c.out, h2wire.FlagAck, [8]byte(data))
		}
	case h2wire.FrameRSTStream, h2wire.FrameGoAway:
		return fmt.Errorf("frame of type %d", h.Type)
	}
	return nil
}
