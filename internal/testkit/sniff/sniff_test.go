package sniff

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"
)

// frame makes an Ethernet frame with a TCP segment.
func frame(src, dst string, seq uint32, flags byte, payload string) []byte {
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	tcp := make([]byte, 20, 20+len(payload))
	binary.BigEndian.PutUint16(tcp[0:], s.Port())
	binary.BigEndian.PutUint16(tcp[2:], d.Port())
	binary.BigEndian.PutUint32(tcp[4:], seq)
	tcp[12], tcp[13] = 5<<4, flags
	tcp = append(tcp, payload...)
	eth := make([]byte, 14)
	if s.Addr().Is4() {
		binary.BigEndian.PutUint16(eth[12:], etherIPv4)
		ip := make([]byte, 20)
		ip[0], ip[9] = 0x45, protoTCP
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(tcp)))
		copy(ip[12:], s.Addr().AsSlice())
		copy(ip[16:], d.Addr().AsSlice())
		return bytes.Join([][]byte{eth, ip, tcp}, nil)
	}
	binary.BigEndian.PutUint16(eth[12:], etherIPv6)
	ip := make([]byte, 40)
	ip[0], ip[6] = 0x60, protoTCP
	binary.BigEndian.PutUint16(ip[4:], uint16(len(tcp)))
	copy(ip[8:], s.Addr().AsSlice())
	copy(ip[24:], d.Addr().AsSlice())
	return bytes.Join([][]byte{eth, ip, tcp}, nil)
}

// datagram makes an Ethernet frame with a UDP datagram.
func datagram(src, dst string, payload []byte) []byte {
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	// The addresses and ports stand where TCP has them.
	f := frame(src, dst, 0, 0, "")
	f = f[:len(f)-20]
	udp := make([]byte, 8)
	binary.BigEndian.PutUint16(udp[0:], s.Port())
	binary.BigEndian.PutUint16(udp[2:], d.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(payload)))
	f = append(append(f, udp...), payload...)
	if s.Addr().Is4() {
		f[14+9] = protoUDP
		binary.BigEndian.PutUint16(f[14+2:], uint16(len(f)-14))
	} else {
		f[14+6] = protoUDP
		binary.BigEndian.PutUint16(f[14+4:], uint16(len(f)-14-40))
	}
	return f
}

const (
	syn = 0x02
	fin = 0x01
)

func newTest(needles ...string) *analysis {
	return newAnalysis(Config{Needles: needles, MeshPort: 15008, Ignore: []netip.Addr{netip.MustParseAddr("172.18.0.1")}})
}

func TestKnownTextIsFound(t *testing.T) {
	for name, frames := range map[string][][]byte{
		"in one segment": {frame("10.0.0.1:1000", "10.0.0.2:80", 1, 0, "say secret word")},
		"over IPv6":      {frame("[fd00::1]:1000", "[fd00::2]:80", 1, 0, "say secret word")},
		"across two":     {frame("10.0.0.1:1000", "10.0.0.2:80", 1, 0, "say sec"), frame("10.0.0.1:1000", "10.0.0.2:80", 8, 0, "ret word")},
		"out of order": {
			frame("10.0.0.1:1000", "10.0.0.2:80", 0, syn, ""),
			frame("10.0.0.1:1000", "10.0.0.2:80", 8, 0, "ret word"), frame("10.0.0.1:1000", "10.0.0.2:80", 1, 0, "say sec"),
		},
		"sent twice": {frame("10.0.0.1:1000", "10.0.0.2:80", 1, 0, "say secret word"), frame("10.0.0.1:1000", "10.0.0.2:80", 1, 0, "say secret word")},
		"sent again with more": {
			frame("10.0.0.1:1000", "10.0.0.2:80", 1, 0, "say sec"), frame("10.0.0.1:1000", "10.0.0.2:80", 5, 0, "secret word"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newTest("secret", "absent")
			for _, f := range frames {
				a.frame(f)
			}
			r := a.take()
			if r.Found["secret"] != 1 || len(r.Found) != 1 {
				t.Errorf("found %v", r.Found)
			}
			if r.OpenBytes == 0 || r.MeshBytes != 0 || r.OpenFlows["port 80"] != r.OpenBytes {
				t.Errorf("%+v", r)
			}
			if again := a.take(); again.Segments != 0 || len(again.Found) != 0 {
				t.Errorf("the next report begins with %+v", again)
			}
		})
	}
}

func TestDatagrams(t *testing.T) {
	for _, hosts := range [][2]string{{"10.0.0.1", "10.0.0.2"}, {"[fd00::1]", "[fd00::2]"}} {
		a := newTest("secret")
		client, server := hosts[0]+":50000", hosts[1]
		a.frame(datagram(client, server+":9100", []byte("say secret word")))
		a.frame(datagram(client, server+":53", []byte("secret")))
		a.frame(datagram(client, server+":15008", []byte{0xc3, 0, 0, 0, 1, 8}))
		a.frame(datagram(server+":15008", client, []byte{0x41, 7, 7}))
		r := a.take()
		if r.Found["secret"] != 1 || r.OpenBytes != 15 || r.OpenFlows["udp port 9100"] != 15 || r.MeshBytes != 9 || r.Segments != 3 {
			t.Errorf("%+v", r)
		}
		if want := (QUIC{Handshake: 1, Protected: 1}); r.QUIC != want {
			t.Errorf("%+v, want %+v", r.QUIC, want)
		}
		for _, foreign := range [][]byte{[]byte("secret"), {0x01}, {0xc3, 0, 0, 0}, {0xc3, 0, 0, 0, 9, 8}} {
			a.frame(datagram(client, server+":15008", foreign))
			// A text is a protected packet to who cannot decrypt it; the rest is nothing.
			if r := a.take(); foreign[0] != 's' && r.QUIC.Foreign != len(foreign) {
				t.Errorf("%x: %+v", foreign, r.QUIC)
			}
		}
	}
}

func TestOthersAreIgnored(t *testing.T) {
	a := newTest("secret")
	arp := make([]byte, 60)
	binary.BigEndian.PutUint16(arp[12:], 0x0806)
	for _, f := range [][]byte{frame("172.18.0.1:15012", "172.18.0.11:1000", 1, 0, "secret"), arp, nil, {1, 2, 3}} {
		a.frame(f)
	}
	if r := a.take(); r.Segments != 0 {
		t.Errorf("%+v", r)
	}
}

// handshake records both directions of a TLS connection.
func handshake(t *testing.T, version uint16) (client, server []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	var up, down bytes.Buffer
	done := make(chan error, 1)
	go func() {
		s := tls.Server(tap{b, &down}, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}, MaxVersion: version})
		_, err := io.ReadFull(s, make([]byte, 6))
		done <- err
	}()
	c := tls.Client(tap{a, &up}, &tls.Config{InsecureSkipVerify: true, MaxVersion: version})
	if _, err := c.Write([]byte("secret")); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return up.Bytes(), down.Bytes()
}

// tap copies what is written.
type tap struct {
	net.Conn
	to *bytes.Buffer
}

func (c tap) Write(b []byte) (int, error) {
	c.to.Write(b)
	return c.Conn.Write(b)
}

func TestTLSVersions(t *testing.T) {
	for version, want := range map[uint16][4]int{tls.VersionTLS13: {1, 1, 1, 1}, tls.VersionTLS12: {1, 0, 1, 0}} {
		client, server := handshake(t, version)
		a := newTest("secret")
		a.frame(frame("10.0.0.1:1000", "10.0.0.2:15008", 99, syn, ""))
		a.frame(frame("10.0.0.2:15008", "10.0.0.1:1000", 99, syn, ""))
		// In small pieces, as records do not end where segments do.
		for i := 0; i < len(client); i += 100 {
			a.frame(frame("10.0.0.1:1000", "10.0.0.2:15008", uint32(100+i), 0, string(client[i:min(i+100, len(client))])))
		}
		a.frame(frame("10.0.0.2:15008", "10.0.0.1:1000", 100, 0, string(server)))
		r := a.take()
		if got := [4]int{r.TLS.Offers, r.TLS.Offers13, r.TLS.Hellos, r.TLS.Hellos13}; got != want {
			t.Errorf("%s: hellos %v, want %v", tls.VersionName(version), got, want)
		}
		if r.TLS.Foreign != 0 || r.Unread != 0 || len(r.Found) != 0 || r.TLS.ApplicationData == 0 || r.OpenBytes != 0 {
			t.Errorf("%+v", r)
		}
	}
}

func TestPlaintextOnTheMeshPortIsNoticed(t *testing.T) {
	a := newTest()
	a.frame(frame("10.0.0.1:1000", "10.0.0.2:15008", 0, syn, ""))
	a.frame(frame("10.0.0.1:1000", "10.0.0.2:15008", 1, 0, "GET / HTTP/1.1"))
	a.frame(frame("10.0.0.1:1000", "10.0.0.2:15008", 15, 0, "\r\n"))
	if r := a.take(); r.TLS.Foreign != 16 {
		t.Errorf("%d foreign bytes, want 16", r.TLS.Foreign)
	}
}

func TestWhatCannotBeToldIsCounted(t *testing.T) {
	a := newTest()
	a.frame(frame("10.0.0.1:1000", "10.0.0.2:15008", 5, 0, "in the middle"))
	if r := a.take(); r.Unread != 13 || r.TLS.Foreign != 0 {
		t.Errorf("%+v", r)
	}
	a.frame(frame("10.0.0.1:1000", "10.0.0.2:15008", 18, fin, ""))
	if len(a.streams) != 0 {
		t.Errorf("%d streams are remembered after their end", len(a.streams))
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(frame("10.0.0.1:1000", "10.0.0.2:15008", 1, syn, "x"))
	f.Add(frame("[fd00::1]:1000", "[fd00::2]:80", 1, fin, "secret"))
	f.Add([]byte{})
	f.Fuzz(func(_ *testing.T, b []byte) {
		a := newTest("secret")
		a.frame(b)
		a.frame(b)
	})
}

func FuzzRecords(f *testing.F) {
	f.Add([]byte("\x16\x03\x01\x00\x04\x01\x00\x00\x00"), 3)
	f.Add([]byte("GET /"), 1)
	f.Fuzz(func(t *testing.T, b []byte, piece int) {
		piece = max(1, min(piece, 1000))
		var whole, parts TLS
		var r1, r2 records
		r1.feed(b, &whole)
		for i := 0; i < len(b); i += piece {
			r2.feed(b[i:min(i+piece, len(b))], &parts)
		}
		if fmt.Sprint(whole) != fmt.Sprint(parts) {
			t.Errorf("whole %+v, in pieces %+v", whole, parts)
		}
	})
}
