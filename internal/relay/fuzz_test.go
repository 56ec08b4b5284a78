package relay

import (
	"bytes"
	"net"
	"testing"

	"golang.org/x/net/ipv4"
)

func FuzzPacket(f *testing.F) {
	b, err := appendPacket(nil, &ipv4.Message{
		Buffers: [][]byte{[]byte("payload")}, N: 7, OOB: []byte{1, 2, 3}, NN: 3, Addr: &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{})
	f.Add(make([]byte, packetHeader))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = tagOf(b)
		m := ipv4.Message{Buffers: [][]byte{make([]byte, 1452)}, OOB: make([]byte, 128)}
		if readPacket(b, &m) != nil {
			return
		}
		if len(b) > packetHeader+m.NN+1452 {
			return // cut
		}
		again, err := appendPacket(nil, &m)
		if err != nil || !bytes.Equal(again[16:], b[16:]) {
			t.Errorf("%x became %x, %v", b, again, err)
		}
	})
}

func TestTags(t *testing.T) {
	id, err := ids(0x01020304).GenerateConnectionID()
	if err != nil || id.Len() != ids(0).ConnectionIDLen() {
		t.Fatal(id, err)
	}
	short := append([]byte{0x41}, id.Bytes()...)
	long := append([]byte{0xe1, 0, 0, 0, 1, idLen}, id.Bytes()...)
	for _, b := range [][]byte{short, long, append(short, 1, 2, 3)} {
		if tag, ok := tagOf(b); !ok || tag != 0x01020304 {
			t.Errorf("%x: %x, %t", b, tag, ok)
		}
	}
	for _, b := range [][]byte{nil, short[:8], long[:13], {0xe1, 0, 0, 0, 1, 4, 1, 2, 3, 4, 5, 6, 7, 8}, {0xe1, 0, 0}} {
		if tag, ok := tagOf(b); ok {
			t.Errorf("%x: %x", b, tag)
		}
	}
}
