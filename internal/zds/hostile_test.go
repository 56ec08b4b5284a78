package zds_test

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	zdsapi "github.com/ambit-mesh/ambit/apis/zds"
	"github.com/ambit-mesh/ambit/internal/netns/netnstest"
	"github.com/ambit-mesh/ambit/internal/zds"
)

// openFDs counts this process's descriptors.
func openFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func add(uid string) *zdsapi.WorkloadRequest {
	return &zdsapi.WorkloadRequest{Payload: &zdsapi.WorkloadRequest_Add{Add: &zdsapi.AddWorkload{Uid: uid}}}
}

// A hostile agent: whatever it sends, the client acknowledges in order with an
// error, keeps no descriptor, and goes on.
func TestClientSurvivesMalformedPackets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zds.sock")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := newProxy()
	start(t, newClient(t, path, p).Run)
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 2*zds.MaxPacket)
	if _, err := c.Read(buf); err != nil { // hello
		t.Fatal(err)
	}
	ns := netnstest.New(t)
	var nsFD int
	_ = ns.WithFD(func(fd int) error { nsFD = fd; return nil })
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	nullFD := int(null.Fd())
	before := openFDs(t)

	many := make([]int, 40)
	for i := range many {
		many[i] = nullFD
	}
	for _, tc := range []struct {
		name   string
		packet []byte
		fds    []int
		ok     bool
	}{
		{"no protobuf", []byte{0xff, 0xff}, nil, false},
		{"no protobuf, with a descriptor", []byte{0xff}, []int{nullFD}, false},
		{"no payload", []byte{0x7a, 0x00}, []int{nullFD}, false},
		{"add without a descriptor", marshal(t, add("a")), nil, false},
		{"add with two", marshal(t, add("a")), []int{nsFD, nsFD}, false},
		{"add with forty", marshal(t, add("a")), many, false},
		{"add with what is no namespace", marshal(t, add("a")), []int{nullFD}, false},
		{"add without a uid", marshal(t, add("")), []int{nsFD}, false},
		{"del with a descriptor", marshal(t, &zdsapi.WorkloadRequest{Payload: &zdsapi.WorkloadRequest_Del{Del: &zdsapi.DelWorkload{Uid: "a"}}}), []int{nsFD}, false},
		{"too large", marshal(t, add(string(bytes.Repeat([]byte("x"), zds.MaxPacket)))), []int{nsFD}, false},
		{"a good one", marshal(t, add("a")), []int{nsFD}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var oob []byte
			if len(tc.fds) > 0 {
				oob = unix.UnixRights(tc.fds...)
			}
			if _, _, err := c.WriteMsgUnix(tc.packet, oob, nil); err != nil {
				t.Fatal(err)
			}
			if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			n, err := c.Read(buf)
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
			resp := &zdsapi.WorkloadResponse{}
			if err := proto.Unmarshal(buf[:n], resp); err != nil {
				t.Fatal(err)
			}
			if got := resp.GetAck().GetError(); (got == "") != tc.ok {
				t.Errorf("answer %q", got)
			}
			if now := openFDs(t); now != before {
				t.Errorf("%d descriptors, %d before", now, before)
			}
		})
	}
	if !p.has("a", ns) {
		t.Error("the good one did not arrive")
	}
}

// A hostile ztunnel: the server closes its connection, keeps no descriptor, and
// serves the next one.
func TestServerSurvivesMalformedPackets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zds.sock")
	server, _ := newServer(t, path)
	start(t, server.Run)
	netnstest.Eventually(t, "the socket is there", func() bool { _, err := os.Stat(path); return err == nil })
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	before := openFDs(t)
	hello := marshal(t, &zdsapi.ZdsHello{Version: zdsapi.Version_V1})
	ack := marshal(t, &zdsapi.WorkloadResponse{Payload: &zdsapi.WorkloadResponse_Ack{Ack: &zdsapi.Ack{}}})
	for _, tc := range []struct {
		name    string
		packets [][]byte
		fds     bool
	}{
		{"no hello", nil, false},
		{"hello of another version", [][]byte{marshal(t, &zdsapi.ZdsHello{Version: 7})}, false},
		{"hello that is no protobuf", [][]byte{{0xff}}, false},
		{"hello with a descriptor", [][]byte{hello}, true},
		{"too many acks", [][]byte{hello, ack, ack}, false},
		{"answer that is no ack", [][]byte{hello, {0x7a, 0x00}}, false},
		{"oversize answer", [][]byte{hello, make([]byte, 2*zds.MaxPacket)}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for _, b := range tc.packets {
				var oob []byte
				if tc.fds {
					oob = unix.UnixRights(int(null.Fd()))
				}
				if _, _, err := c.WriteMsgUnix(b, oob, nil); err != nil {
					break // refused already
				}
			}
			if tc.packets == nil {
				_ = c.CloseWrite()
			}
			if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, zds.MaxPacket)
			for {
				n, err := c.Read(buf)
				if os.IsTimeout(err) {
					t.Fatal("connection stays open")
				}
				if n == 0 || err != nil {
					break
				}
			}
		})
	}
	netnstest.Eventually(t, "all descriptors are closed", func() bool { return openFDs(t) == before })

	ns := netnstest.New(t)
	set(t, server, "a", ns)
	p := newProxy()
	start(t, newClient(t, path, p).Run)
	netnstest.Eventually(t, "the next one is served", func() bool { return p.has("a", ns) })
}
