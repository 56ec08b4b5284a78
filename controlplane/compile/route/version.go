package route

import (
	"crypto/sha256"
	"encoding/hex"

	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/apis/waypoint"
)

// digest tells routes apart. Deterministic marshalling holds within one build of
// the program, which is as long as it has to.
func digest(m proto.Message) [sha256.Size]byte {
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		// Strings come from valid UTF-8 objects, which is all that can fail.
		text = []byte(err.Error())
	}
	return sha256.Sum256(text)
}

// Version is another one whenever a frontend that holds the ports of the output is
// another one. Routes count by the digest that was made when they were translated.
// The frontend must not be in use yet.
func (o *Output) Version(f *waypoint.Frontend) string {
	h := sha256.New()
	var tables []*waypoint.RouteTable
	for _, p := range f.GetPorts() {
		if t := p.GetProducer(); t != nil {
			tables = append(tables, t)
		}
		for _, c := range p.GetConsumers() {
			tables = append(tables, c.GetTable())
		}
	}
	routes := make([][]*waypoint.Route, len(tables))
	for i, t := range tables {
		routes[i], t.Routes = t.GetRoutes(), nil
		// The digests have one length, so that this tells where a table ends.
		h.Write([]byte{byte(len(routes[i]) >> 16), byte(len(routes[i]) >> 8), byte(len(routes[i]))})
		for _, r := range routes[i] {
			d := o.digests[r]
			h.Write(d[:])
		}
	}
	rest := digest(f)
	for i, t := range tables {
		t.Routes = routes[i]
	}
	h.Write(rest[:])
	return hex.EncodeToString(h.Sum(nil)[:8])
}
