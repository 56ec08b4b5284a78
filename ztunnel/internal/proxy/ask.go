package proxy

import (
	"crypto/tls"
	"net"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone3"
)

// tunnelStream is a stream of either transport.
type tunnelStream interface {
	Splice(app net.Conn) error
	Reset(code hbone.ErrCode)
	Transferred() (sent, received int64)
}

var (
	_ tunnelStream = (*hbone.Stream)(nil)
	_ tunnelStream = (*hbone3.Stream)(nil)
)

// What a tunnel speaks, as the access log has it.
const transportH2, transportH3 = "h2", "h3"

// ask is a CONNECT of either transport that waits for a decision.
type ask struct {
	authority, protocol, path string
	fields                    []hbone.Field
	transport                 string
	peer                      *tls.ConnectionState
	remote, local             net.Addr
	stream                    tunnelStream
	accept                    func(...hbone.Field) (tunnelStream, error)
	refuse                    func(status int, proxyStatus string)
}

func askHTTP2(in *hbone.Incoming) *ask {
	return &ask{
		transport: transportH2, authority: in.Authority, protocol: in.Protocol, path: in.Path, fields: in.Fields, peer: in.Peer, remote: in.RemoteAddr, local: in.LocalAddr,
		stream: in.Stream(), refuse: in.Refuse,
		accept: func(f ...hbone.Field) (tunnelStream, error) { return orNil(in.Accept(f...)) },
	}
}

func askHTTP3(in *hbone3.Incoming) *ask {
	return &ask{
		transport: transportH3, authority: in.Authority, protocol: in.Protocol, path: in.Path, fields: in.Fields, peer: in.Peer, remote: in.RemoteAddr, local: in.LocalAddr,
		stream: in.Stream(), refuse: in.Refuse,
		accept: func(f ...hbone.Field) (tunnelStream, error) { return orNil(in.Accept(f...)) },
	}
}

// orNil keeps a nil stream nil.
func orNil[S tunnelStream](s S, err error) (tunnelStream, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// get gives the first value of a field.
func (a *ask) get(name string) string {
	for _, f := range a.fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}
