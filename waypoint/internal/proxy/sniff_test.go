package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestClassify(t *testing.T) {
	for text, want := range map[string]dialect{
		"":                           undecided,
		"G":                          undecided,
		"GET":                        undecided,
		"GET ":                       http1Dialect,
		"POST / HTTP/1.1\r\n":        http1Dialect,
		"PUT":                        undecided,
		"PU":                         undecided,
		"PR":                         undecided,
		"PRI * HTTP/2.0\r\n\r\nSM":   undecided,
		preface:                      http2Dialect,
		preface + "more":             http2Dialect,
		"PRI * HTTP/1":               opaque,
		"get /":                      opaque,
		"GETTING":                    opaque,
		"\x16":                       undecided,
		"\x16\x03\x01":               tlsDialect,
		"\x16\x16":                   opaque,
		"SSH-2.0-x":                  opaque,
		"\x00":                       opaque,
		"OPTIONS * HTTP/1.1\r\n\r\n": http1Dialect,
	} {
		if got := classify([]byte(text)); got != want {
			t.Errorf("%q is %d, want %d", text, got, want)
		}
	}
}

// hello gives the ClientHello of crypto/tls for a server name.
func hello(t testing.TB, name string) []byte {
	t.Helper()
	client, server := net.Pipe()
	go func() {
		_ = tls.Client(client, &tls.Config{ServerName: name, InsecureSkipVerify: name == "", MinVersion: tls.VersionTLS12}).Handshake() // no server answers
		client.Close()
	}()
	_ = server.SetReadDeadline(time.Now().Add(time.Minute))
	b := make([]byte, 16<<10)
	n, err := server.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	return b[:n]
}

func TestServerName(t *testing.T) {
	whole := hello(t, "secure.example.com")
	if name, err := serverName(whole); name != "secure.example.com" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
	if name, err := serverName(hello(t, "")); name != "" || err != nil {
		t.Errorf("a hello without a name: %q, %v", name, err)
	}
	for n := range whole {
		if _, err := serverName(whole[:n]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("the first %d of %d bytes: %v", n, len(whole), err)
		}
	}
	// The handshake message spread over two records, RFC 8446 section 5.1.
	body := whole[5:]
	record := func(p []byte) []byte {
		return append([]byte{0x16, 3, 1, byte(len(p) >> 8), byte(len(p))}, p...)
	}
	if name, err := serverName(append(record(body[:20]), record(body[20:])...)); name != "secure.example.com" || err != nil {
		t.Errorf("two records: %q, %v", name, err)
	}
	for _, bad := range []string{"GET / HTTP/1.1\r\n", "\x16\x03\x01\x00\x00", "\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", "\x16\x03\x01\x00\x04\x01\xff\xff\xff"} {
		if _, err := serverName([]byte(bad)); !errors.Is(err, errNoHello) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// FuzzServerName: whatever comes, there is an answer, and it does not depend on
// what comes behind a complete hello.
func FuzzServerName(f *testing.F) {
	f.Add(hello(f, "secure.example.com"))
	f.Add(hello(f, ""))
	f.Add([]byte(strings.Repeat("\x16\x03\x01\x00\x01\x01", 10)))
	f.Fuzz(func(t *testing.T, b []byte) {
		name, err := serverName(b)
		if err != nil {
			return
		}
		again, err := serverName(append(bytes.Clone(b), "and more"...))
		if err != nil || again != name {
			t.Errorf("%q became %q, %v", name, again, err)
		}
	})
}

func FuzzClassify(f *testing.F) {
	f.Add([]byte(preface))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := classify(b)
		if d == undecided && len(b) >= maxSniffed {
			t.Fatalf("%q is not told by %d bytes", b, len(b))
		}
		if d != undecided && classify(append(bytes.Clone(b), 'x')) != d {
			t.Fatalf("%q is another dialect with one more byte", b)
		}
	})
}
