package zds

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	zdsapi "github.com/ambit-mesh/ambit/apis/zds"
)

// MaxPacket is the size of the largest packet, in bytes.
const MaxPacket = 1024

// ErrMalformed says that a packet does not follow the protocol.
var ErrMalformed = errors.New("malformed ZDS packet")

// Workload is what a proxy is told about a pod beside its namespace.
type Workload struct {
	Name           string
	Namespace      string
	ServiceAccount string
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// decodeRequest parses a request that came with fds file descriptors. The
// payload of what it gives is set, and its uid is not empty.
func decodeRequest(b []byte, fds int) (*zdsapi.WorkloadRequest, error) {
	req := &zdsapi.WorkloadRequest{}
	if err := proto.Unmarshal(b, req); err != nil {
		return nil, malformed("request: %v", err)
	}
	wantFDs, moreFDs, uid := 0, 0, ""
	switch p := req.Payload.(type) {
	case *zdsapi.WorkloadRequest_Add:
		wantFDs, uid = 1, p.Add.GetUid()
		if p.Add.GetHandover() != nil {
			moreFDs = maxListeners
		}
	case *zdsapi.WorkloadRequest_Keep:
		uid = p.Keep.GetUid()
	case *zdsapi.WorkloadRequest_Del:
		uid = p.Del.GetUid()
	case *zdsapi.WorkloadRequest_SnapshotSent:
		uid = "-"
	default:
		return nil, malformed("request without a payload that this version knows")
	}
	if uid == "" {
		return nil, malformed("request with an empty uid")
	}
	if fds < wantFDs || fds > wantFDs+moreFDs {
		return nil, malformed("request came with %d file descriptors, want %d and at most %d listening sockets", fds, wantFDs, moreFDs)
	}
	return req, nil
}

func decodeHello(b []byte, fds int) (*zdsapi.ZdsHello, error) {
	hello := &zdsapi.ZdsHello{}
	if err := proto.Unmarshal(b, hello); err != nil {
		return nil, malformed("hello: %v", err)
	}
	if fds != 0 {
		return nil, malformed("hello came with %d file descriptors", fds)
	}
	if hello.GetVersion() != zdsapi.Version_V1 {
		return nil, fmt.Errorf("ZDS version %d: this side speaks version %d", hello.GetVersion(), zdsapi.Version_V1)
	}
	return hello, nil
}

// decodeAck gives the error that the proxy reported, empty for success. The answer
// of success to an addition may come with listening sockets.
func decodeAck(b []byte, fds int) (string, error) {
	resp := &zdsapi.WorkloadResponse{}
	if err := proto.Unmarshal(b, resp); err != nil {
		return "", malformed("response: %v", err)
	}
	ack, ok := resp.Payload.(*zdsapi.WorkloadResponse_Ack)
	if !ok {
		return "", malformed("response without an ack")
	}
	if fds > maxListeners || fds > 0 && ack.Ack.GetError() != "" {
		return "", malformed("response came with %d file descriptors", fds)
	}
	return ack.Ack.GetError(), nil
}

// encode marshals a message that must fit into one packet.
func encode(m proto.Message) ([]byte, error) {
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode ZDS packet: %w", err)
	}
	if len(b) > MaxPacket {
		return nil, fmt.Errorf("encode ZDS packet: %d bytes, at most %d fit", len(b), MaxPacket)
	}
	return b, nil
}

func addRequest(uid string, w Workload, h *Handover) *zdsapi.WorkloadRequest {
	add := &zdsapi.AddWorkload{
		Uid:          uid,
		WorkloadInfo: &zdsapi.WorkloadInfo{Name: w.Name, Namespace: w.Namespace, ServiceAccount: w.ServiceAccount},
	}
	if h != nil {
		add.Handover = &zdsapi.Handover{Served: h.Served}
	}
	return &zdsapi.WorkloadRequest{Payload: &zdsapi.WorkloadRequest_Add{Add: add}}
}

func keepRequest(uid string) *zdsapi.WorkloadRequest {
	return &zdsapi.WorkloadRequest{Payload: &zdsapi.WorkloadRequest_Keep{Keep: &zdsapi.KeepWorkload{Uid: uid}}}
}

func delRequest(uid string) *zdsapi.WorkloadRequest {
	return &zdsapi.WorkloadRequest{Payload: &zdsapi.WorkloadRequest_Del{Del: &zdsapi.DelWorkload{Uid: uid}}}
}

func snapshotSent() *zdsapi.WorkloadRequest {
	return &zdsapi.WorkloadRequest{Payload: &zdsapi.WorkloadRequest_SnapshotSent{SnapshotSent: &zdsapi.SnapshotSent{}}}
}

// ackFor answers a request; a text too long for a packet is cut.
func ackFor(err error) *zdsapi.WorkloadResponse {
	ack := &zdsapi.Ack{}
	if err != nil {
		const room = MaxPacket - 64
		ack.Error = err.Error()
		if len(ack.Error) > room {
			ack.Error = ack.Error[:room]
		}
		ack.Error = validUTF8(ack.Error)
	}
	return &zdsapi.WorkloadResponse{Payload: &zdsapi.WorkloadResponse_Ack{Ack: ack}}
}
