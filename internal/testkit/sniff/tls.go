package sniff

import "encoding/binary"

// Record types of TLS (RFC 8446, section 5.1).
const (
	recordChangeCipherSpec = 20
	recordAlert            = 21
	recordHandshake        = 22
	recordApplicationData  = 23
)

const (
	helloClient        = 1
	helloServer        = 2
	extensionVersions  = 43
	version13          = 0x0304
	maxRecord          = 1<<14 + 256
	recordHeader       = 5
	legacyMajorVersion = 3
)

// TLS counts what was seen on the ports that should carry nothing else.
type TLS struct {
	// Hellos13 and Hellos are ServerHello messages, those that settle on TLS 1.3
	// and all. Offers13 and Offers are the same of ClientHello and what it offers.
	Hellos13 int `json:"serverHellosTLS13"`
	Hellos   int `json:"serverHellos"`
	Offers13 int `json:"clientHellosOfferingTLS13"`
	Offers   int `json:"clientHellos"`
	// Records of each kind.
	Handshake       int `json:"handshakeRecords"`
	ApplicationData int `json:"applicationDataRecords"`
	Other           int `json:"otherRecords"`
	// Foreign are bytes that are no TLS record.
	Foreign int `json:"bytesThatAreNotTLS"`
}

// records follows one direction of a TLS connection.
type records struct {
	buf    []byte
	broken bool // it is no TLS, or no more
	hello  bool // its first handshake message was seen
}

// feed takes the next bytes and counts what they complete.
func (r *records) feed(b []byte, t *TLS) {
	if r.broken {
		t.Foreign += len(b)
		return
	}
	r.buf = append(r.buf, b...)
	for len(r.buf) >= recordHeader {
		kind, length := r.buf[0], int(binary.BigEndian.Uint16(r.buf[3:]))
		if kind < recordChangeCipherSpec || kind > recordApplicationData || r.buf[1] != legacyMajorVersion || length > maxRecord {
			t.Foreign += len(r.buf)
			r.buf, r.broken = nil, true
			return
		}
		if len(r.buf) < recordHeader+length {
			return
		}
		r.record(kind, r.buf[recordHeader:recordHeader+length], t)
		r.buf = r.buf[recordHeader+length:]
	}
}

func (r *records) record(kind byte, body []byte, t *TLS) {
	switch kind {
	case recordHandshake:
		t.Handshake++
		if !r.hello {
			r.hello = true
			countHello(body, t)
		}
	case recordApplicationData:
		t.ApplicationData++
	default:
		t.Other++
	}
}

func countHello(body []byte, t *TLS) {
	if len(body) < 4 {
		return
	}
	offers := versions(body[0], body[4:])
	has13 := false
	for _, v := range offers {
		has13 = has13 || v == version13
	}
	switch body[0] {
	case helloClient:
		t.Offers++
		if has13 {
			t.Offers13++
		}
	case helloServer:
		t.Hellos++
		if has13 {
			t.Hellos13++
		}
	}
}

// versions gives what the supported_versions extension of a hello says (RFC
// 8446, sections 4.1.2, 4.1.3 and 4.2.1).
func versions(kind byte, h []byte) []uint16 {
	c := cursor{h}
	c.skip(2 + 32) // legacy version, random
	c.take(1)      // session id
	if kind == helloClient {
		c.take(2) // cipher suites
		c.take(1) // compression methods
	} else {
		c.skip(2 + 1)
	}
	ext := cursor{c.take(2)}
	for len(ext.b) >= 4 {
		id := binary.BigEndian.Uint16(ext.b)
		ext.skip(2)
		value := ext.take(2)
		if id != extensionVersions {
			continue
		}
		if kind == helloClient {
			list := cursor{value}
			value = list.take(1)
		}
		var all []uint16
		for ; len(value) >= 2; value = value[2:] {
			all = append(all, binary.BigEndian.Uint16(value))
		}
		return all
	}
	return nil
}

// cursor reads vectors; beyond the end everything is empty.
type cursor struct{ b []byte }

func (c *cursor) skip(n int) { c.b = c.b[min(n, len(c.b)):] }

// take gives a vector whose length stands before it in size bytes.
func (c *cursor) take(size int) []byte {
	if len(c.b) < size {
		c.b = nil
		return nil
	}
	n := 0
	for _, b := range c.b[:size] {
		n = n<<8 | int(b)
	}
	c.skip(size)
	v := c.b[:min(n, len(c.b))]
	c.skip(n)
	return v
}
