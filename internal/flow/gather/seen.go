package gather

import (
	"hash/maphash"

	"google.golang.org/protobuf/proto"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
)

// remembered is how many of the newest records are known again at least; a proxy
// keeps 4096.
const remembered = 1 << 15

// seen knows the newest records again. The zero value is ready.
type seen struct {
	seed     maphash.Seed
	new, old map[uint64]struct{}
	buf      []byte
}

// add is false if the record was there before. Records have the time of their start
// in nanoseconds and the ports of the connection: two of them are never the same.
func (s *seen) add(r *flowpb.FlowRecord) bool {
	if s.new == nil {
		s.seed, s.new = maphash.MakeSeed(), make(map[uint64]struct{})
	}
	var err error
	if s.buf, err = (proto.MarshalOptions{Deterministic: true}).MarshalAppend(s.buf[:0], r); err != nil {
		return true // better twice than not at all
	}
	h := maphash.Bytes(s.seed, s.buf)
	if _, ok := s.new[h]; ok {
		return false
	}
	_, known := s.old[h]
	s.new[h] = struct{}{}
	if len(s.new) == remembered {
		s.new, s.old = make(map[uint64]struct{}), s.new
	}
	return !known
}
