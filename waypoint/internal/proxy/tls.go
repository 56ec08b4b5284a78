package proxy

import (
	"context"
	"errors"
	"io"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/ambit-mesh/ambit/waypoint/internal/upstream"
)

// maxHello bounds a ClientHello.
const maxHello = 64 << 10

// helloPatience bounds the wait for a ClientHello once it has begun.
const helloPatience = 10 * time.Second

// serveTLS passes a TLS connection on by the name that the client asks for. first
// are bytes that were read already.
func (d *downstream) serveTLS(ctx context.Context, first []byte) {
	hello := first
	_ = d.conn.SetReadDeadline(time.Now().Add(helloPatience))
	for {
		name, err := serverName(hello)
		if !errors.Is(err, io.ErrUnexpectedEOF) || len(hello) > maxHello {
			_ = d.conn.SetReadDeadline(time.Time{})
			// What is no TLS has no name: a route for all names takes it.
			o := &opaqueConn{d: d, record: d.recordOf(time.Now()), encrypted: err == nil}
			o.serve(ctx, hello, name)
			return
		}
		buf := make([]byte, 4096)
		n, rerr := d.conn.Read(buf)
		hello = append(hello, buf[:n]...)
		if rerr != nil {
			return
		}
	}
}

var errNoHello = errors.New("no TLS ClientHello")

// serverName reads the server_name of a ClientHello (RFC 8446 section 4.1.2, RFC
// 6066 section 3), which may be spread over several records. "" is none;
// io.ErrUnexpectedEOF says that more bytes are needed.
func serverName(b []byte) (string, error) {
	var body []byte
	for want := -1; want < 0 || len(body) < want; {
		switch {
		case len(b) < 5:
			return "", io.ErrUnexpectedEOF
		case b[0] != 0x16 || b[1] != 3:
			return "", errNoHello
		}
		n := int(b[3])<<8 | int(b[4])
		if len(b) < 5+n {
			return "", io.ErrUnexpectedEOF
		}
		body = append(body, b[5:5+n]...)
		b = b[5+n:]
		if len(body) >= 4 {
			want = 4 + (int(body[1])<<16 | int(body[2])<<8 | int(body[3]))
			if body[0] != 1 || want > maxHello {
				return "", errNoHello
			}
		} else if n == 0 {
			return "", errNoHello
		}
	}
	return nameOf(body[4:])
}

func nameOf(b []byte) (string, error) {
	hello := cryptobyte.String(b)
	var session, suites, compression, extensions cryptobyte.String
	if !hello.Skip(2+32) || !hello.ReadUint8LengthPrefixed(&session) || !hello.ReadUint16LengthPrefixed(&suites) ||
		!hello.ReadUint8LengthPrefixed(&compression) {
		return "", errNoHello
	}
	if hello.Empty() {
		return "", nil
	}
	if !hello.ReadUint16LengthPrefixed(&extensions) {
		return "", errNoHello
	}
	for !extensions.Empty() {
		var kind uint16
		var data, names cryptobyte.String
		if !extensions.ReadUint16(&kind) || !extensions.ReadUint16LengthPrefixed(&data) {
			return "", errNoHello
		}
		if kind != 0 {
			continue
		}
		if !data.ReadUint16LengthPrefixed(&names) {
			return "", errNoHello
		}
		for !names.Empty() {
			var t uint8
			var name cryptobyte.String
			if !names.ReadUint8(&t) || !names.ReadUint16LengthPrefixed(&name) {
				return "", errNoHello
			}
			if t == 0 {
				return string(name), nil
			}
		}
	}
	return "", nil
}

// bare is a host outside to which a connection goes without TLS; nil for anything else.
type bare struct{ *upstream.Cluster }

// bareTo is called before the connection is made: one that has TLS after all is ended
// for nothing, and never the other way round.
func bareTo(c *upstream.Cluster) bare {
	if c.Outside() && !c.Secured() {
		return bare{c}
	}
	return bare{}
}

// outdated says that TLS has become needed.
func (b bare) outdated() error {
	if b.Cluster == nil || !b.Secured() {
		return nil
	}
	return failed(503, flagConnect, "destination_unavailable", "a BackendTLSPolicy has come, by which %s is spoken to over TLS", b.Service())
}
