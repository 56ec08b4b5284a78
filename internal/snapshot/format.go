package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
)

const (
	magic  = "AMBITWDS"
	format = 1
	// maxRecord is the largest record, in bytes: more than any resource has.
	maxRecord = 4 << 20
)

// Header says what a snapshot is of.
type Header struct {
	Cluster     string `json:"cluster"`
	TrustDomain string `json:"trustDomain"`
	Node        string `json:"node"`
	// Heard is when the control plane's word was known to be this.
	Heard time.Time `json:"heard"`
}

// Reasons for which a snapshot is refused.
var (
	ErrCorrupt = errors.New("corrupt")
	ErrFormat  = errors.New("of another format")
	ErrForeign = errors.New("not of this node")
	ErrTooOld  = errors.New("too old")
	ErrTooBig  = errors.New("too large")
)

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

// decode reads a whole snapshot.
func decode(b []byte) (Header, []*discoveryv3.Resource, error) {
	var h Header
	if len(b) < len(magic)+4+sha256.Size || string(b[:len(magic)]) != magic {
		return h, nil, corrupt("it does not begin as a snapshot does, or is cut short")
	}
	if v := binary.BigEndian.Uint32(b[len(magic):]); v != format {
		return h, nil, fmt.Errorf("%w: %d, this version reads %d", ErrFormat, v, format)
	}
	body, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], sum) {
		return h, nil, corrupt("the checksum is wrong")
	}
	body = body[len(magic)+4:]
	record, body, err := next(body)
	if err != nil {
		return h, nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(record))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&h); err != nil {
		return h, nil, corrupt("header: %v", err)
	}
	var all []*discoveryv3.Resource
	for {
		if record, body, err = next(body); err != nil {
			return h, nil, err
		}
		if record == nil {
			break
		}
		r := new(discoveryv3.Resource)
		if err := proto.Unmarshal(record, r); err != nil {
			return h, nil, corrupt("resource %d: %v", len(all), err)
		}
		if r.GetName() == "" || r.GetResource().GetTypeUrl() == "" {
			return h, nil, corrupt("resource %d has no name or no type", len(all))
		}
		all = append(all, r)
	}
	if len(body) > 0 {
		return h, nil, corrupt("%d bytes after its end", len(body))
	}
	return h, all, nil
}

// next gives a record and what follows it; nil at the end of the records.
func next(b []byte) (record, rest []byte, err error) {
	if len(b) < 4 {
		return nil, nil, corrupt("a record is cut short")
	}
	n := binary.BigEndian.Uint32(b)
	b = b[4:]
	switch {
	case n == 0:
		return nil, b, nil
	case n > maxRecord || int(n) > len(b):
		return nil, nil, corrupt("a record of %d bytes", n)
	}
	return b[:n:n], b[n:], nil
}

// encoder writes a snapshot.
type encoder struct {
	w   io.Writer // and the checksum
	out io.Writer
	sum hash.Hash
	n   int64
}

func newEncoder(w io.Writer, h Header) (*encoder, error) {
	sum := sha256.New()
	e := &encoder{w: io.MultiWriter(w, sum), out: w, sum: sum}
	if err := e.write(binary.BigEndian.AppendUint32([]byte(magic), format)); err != nil {
		return nil, err
	}
	header, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	return e, e.record(header)
}

func (e *encoder) write(b []byte) error {
	n, err := e.w.Write(b)
	e.n += int64(n)
	return err
}

func (e *encoder) record(b []byte) error {
	if len(b) == 0 || len(b) > maxRecord {
		return fmt.Errorf("%w: a record of %d bytes", ErrTooBig, len(b))
	}
	if err := e.write(binary.BigEndian.AppendUint32(nil, uint32(len(b)))); err != nil {
		return err
	}
	return e.write(b)
}

func (e *encoder) resource(r *discoveryv3.Resource) error {
	b, err := proto.Marshal(r)
	if err != nil {
		return err
	}
	return e.record(b)
}

// end closes the list and writes the checksum.
func (e *encoder) end() error {
	if err := e.write(make([]byte, 4)); err != nil {
		return err
	}
	_, err := e.out.Write(e.sum.Sum(nil))
	return err
}
