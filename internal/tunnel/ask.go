package tunnel

import (
	"crypto/tls"
	"net"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone3"
	"github.com/ambit-mesh/ambit/internal/masque"
)

// What a tunnel speaks, as access logs have it.
const (
	H2 = "h2" // HTTP/2 over TCP
	H3 = "h3" // HTTP/3 over QUIC
)

// Stream is a stream of either transport.
type Stream interface {
	Splice(app net.Conn) error
	Reset(code hbone.ErrCode)
	Transferred() (sent, received int64)
}

var (
	_ Stream = (*hbone.Stream)(nil)
	_ Stream = (*hbone3.Stream)(nil)
)

// Ask is a CONNECT of either transport that waits for a decision. Its fields are those
// of hbone.Incoming.
type Ask struct {
	Authority, Protocol, Path string
	Fields                    []hbone.Field
	// Transport is H2 or H3.
	Transport     string
	Peer          *tls.ConnectionState
	Remote, Local net.Addr
	// Stream can be reset before it is accepted.
	Stream Stream
	Accept func(...hbone.Field) (Stream, error)
	Refuse func(status int, proxyStatus string)
}

// AskHTTP2 is one that came over TCP.
func AskHTTP2(in *hbone.Incoming) *Ask {
	return &Ask{
		Transport: H2, Authority: in.Authority, Protocol: in.Protocol, Path: in.Path, Fields: in.Fields, Peer: in.Peer, Remote: in.RemoteAddr, Local: in.LocalAddr,
		Stream: in.Stream(), Refuse: in.Refuse,
		Accept: func(f ...hbone.Field) (Stream, error) { return orNil(in.Accept(f...)) },
	}
}

// AskHTTP3 is one that came over QUIC.
func AskHTTP3(in *hbone3.Incoming) *Ask {
	return &Ask{
		Transport: H3, Authority: in.Authority, Protocol: in.Protocol, Path: in.Path, Fields: in.Fields, Peer: in.Peer, Remote: in.RemoteAddr, Local: in.LocalAddr,
		Stream: in.Stream(), Refuse: in.Refuse,
		Accept: func(f ...hbone.Field) (Stream, error) { return orNil(in.Accept(f...)) },
	}
}

// orNil keeps a nil stream nil.
func orNil[S Stream](s S, err error) (Stream, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Get gives the first value of a field.
func (a *Ask) Get(name string) string {
	for _, f := range a.Fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// AcceptUDP accepts a session of datagrams, with further fields of the answer.
func (a *Ask) AcceptUDP(fields ...hbone.Field) (Packets, error) {
	fields = append(fields, hbone.Field{Name: masque.CapsuleField, Value: masque.CapsuleValue})
	batch := a.Transport == H3 && a.Get(masque.BatchField) == masque.BatchValue
	if batch {
		fields = append(fields, hbone.Field{Name: masque.BatchField, Value: masque.BatchValue})
	}
	s, err := a.Accept(fields...)
	if err != nil {
		return nil, err
	}
	if s, ok := s.(*hbone3.Stream); ok {
		return &overQUIC{s: s, batch: batch}, nil
	}
	return newOverHTTP2(s.(*hbone.Stream).Conn(a.Local, a.Remote)), nil
}
