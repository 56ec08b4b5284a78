package zds

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	zdsapi "github.com/ambit-mesh/ambit/apis/zds"
)

func FuzzDecodeRequest(f *testing.F) {
	for _, m := range []proto.Message{
		addRequest("uid", Workload{Name: "n", Namespace: "ns", ServiceAccount: "sa"}, &Handover{Served: true}),
		keepRequest("uid"), delRequest("uid"), snapshotSent(),
		&zdsapi.ZdsHello{Version: zdsapi.Version_V1}, ackFor(nil), ackFor(errors.New("x")),
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, 0)
		f.Add(b, 1)
	}
	f.Add([]byte{0xff}, 1)
	f.Fuzz(func(t *testing.T, b []byte, fds int) {
		if _, err := decodeHello(b, fds); err == nil && fds != 0 {
			t.Error("hello with descriptors taken")
		}
		if _, err := decodeAck(b, fds); err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("ack: %v", err)
		}
		req, err := decodeRequest(b, fds)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("request: %v", err)
			}
			return
		}
		if (req.GetAdd() != nil) != (fds == 1) {
			t.Errorf("taken with %d descriptors: %v", fds, req)
		}
		if req.GetSnapshotSent() == nil && req.GetAdd().GetUid()+req.GetKeep().GetUid()+req.GetDel().GetUid() == "" {
			t.Errorf("taken without a uid: %v", req)
		}
	})
}

func TestAckNeverOutgrowsAPacket(t *testing.T) {
	long := make([]byte, 4*MaxPacket)
	for i := range long {
		long[i] = "é"[i%2]
	}
	b, err := encode(ackFor(errors.New(string(long))))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := decodeAck(b, 0); err != nil || text == "" {
		t.Errorf("got %q, %v", text, err)
	}
}
