package report

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Edge is who talks to whom, and how.
type Edge struct {
	Source      Node `json:"source"`
	Destination Node `json:"destination"`
	// Encrypted and Plaintext count the calls of which every hop was encrypted,
	// and those of which one was not. Those that got nowhere are neither.
	Encrypted   uint64    `json:"encrypted"`
	Plaintext   uint64    `json:"plaintext"`
	Connections uint64    `json:"connections"`
	Requests    uint64    `json:"requests"`
	Errors      uint64    `json:"errors"`
	Denied      uint64    `json:"denied"`
	Sent        uint64    `json:"bytesSent"`
	Received    uint64    `json:"bytesReceived"`
	LastSeen    time.Time `json:"lastSeen"`
}

// Node is one end of an edge: what pods were made by, a service, or an address.
type Node struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	// Kind is workload, service, identity or address.
	Kind string `json:"kind"`
	// Identity of the last call.
	Identity string `json:"identity,omitempty"`
}

// Secured says whether all calls were encrypted.
func (e *Edge) Secured() string {
	switch {
	case e.Plaintext == 0 && e.Encrypted == 0:
		return ""
	case e.Plaintext == 0:
		return "yes"
	case e.Encrypted == 0:
		return "no"
	}
	return "partly"
}

// Edges gathers calls.
type Edges struct {
	all map[[2]Node]*Edge
	// behind has the services by which each workload was addressed.
	behind map[Node]map[Node]struct{}
}

// NewEdges gives none.
func NewEdges() *Edges {
	return &Edges{all: make(map[[2]Node]*Edge), behind: make(map[Node]map[Node]struct{})}
}

// Add counts a call.
func (s *Edges) Add(l *Line) {
	key := [2]Node{l.Source.node(), l.Destination.node()}
	if l.Service != nil {
		workload := key[1]
		key[1] = Node{Namespace: l.Service.Namespace, Name: l.Service.Name, Kind: "service"}
		if workload.Kind == "workload" {
			if s.behind[workload] == nil {
				s.behind[workload] = make(map[Node]struct{})
			}
			s.behind[workload][key[1]] = struct{}{}
		}
	}
	e := s.all[key]
	if e == nil {
		e = &Edge{Source: key[0], Destination: key[1]}
		s.all[key] = e
	}
	if l.HTTP != nil {
		e.Requests++
	} else {
		e.Connections++
	}
	switch l.Security {
	case mtls:
		e.Encrypted++
	case plaintext:
		e.Plaintext++
	}
	switch {
	case l.Verdict == "denied":
		e.Denied++
	case l.failed():
		e.Errors++
	}
	e.Sent += l.Sent
	e.Received += l.Received
	if !l.Time.Before(e.LastSeen) {
		e.LastSeen = l.Time
		e.Source.Identity, e.Destination.Identity = cmp.Or(l.Source.Identity, e.Source.Identity), cmp.Or(l.Destination.Identity, e.Destination.Identity)
	}
}

// List gives the edges by name. Who knows only the destination's side of a call, as
// when the client's node has forgotten it, does not know the Service: such a call
// counts where its like do, or a pair would have two edges.
func (s *Edges) List() []Edge {
	merged := make(map[[2]Node]*Edge, len(s.all))
	for key, e := range s.all {
		if svc, ok := s.serviceOf(key[0], key[1]); ok {
			key[1] = svc
		}
		if merged[key] == nil {
			merged[key] = &Edge{Source: key[0], Destination: key[1]}
		}
		merged[key].add(e)
	}
	all := make([]Edge, 0, len(merged))
	for _, e := range merged {
		all = append(all, *e)
	}
	slices.SortFunc(all, func(a, b Edge) int { return cmp.Or(a.Source.compare(b.Source), a.Destination.compare(b.Destination)) })
	return all
}

// serviceOf gives the one service by which a source also addresses a workload; false
// if that is none or several.
func (s *Edges) serviceOf(source, workload Node) (found Node, ok bool) {
	for svc := range s.behind[workload] {
		if s.all[[2]Node{source, svc}] == nil {
			continue
		}
		if ok {
			return Node{}, false
		}
		found, ok = svc, true
	}
	return found, ok
}

// add takes the calls of another edge in.
func (e *Edge) add(o *Edge) {
	e.Encrypted += o.Encrypted
	e.Plaintext += o.Plaintext
	e.Connections += o.Connections
	e.Requests += o.Requests
	e.Errors += o.Errors
	e.Denied += o.Denied
	e.Sent += o.Sent
	e.Received += o.Received
	older, newer := *o, *e
	if e.LastSeen.Before(o.LastSeen) {
		older, newer = *e, *o
	}
	e.LastSeen = newer.LastSeen
	e.Source.Identity = cmp.Or(newer.Source.Identity, older.Source.Identity)
	e.Destination.Identity = cmp.Or(newer.Destination.Identity, older.Destination.Identity)
}

func (n Node) compare(o Node) int {
	return cmp.Or(cmp.Compare(n.Namespace, o.Namespace), cmp.Compare(n.Name, o.Name), cmp.Compare(n.Kind, o.Kind))
}

// String is how the node is called.
func (n Node) String() string {
	if n.Namespace == "" {
		return n.Name
	}
	return n.Namespace + "/" + n.Name
}

// node is what an end belongs to, so that pods that come and go are one.
func (e *Endpoint) node() Node {
	switch {
	case e.Owner != "":
		return Node{Namespace: e.Namespace, Name: e.Owner, Kind: "workload"}
	case e.Workload != "":
		return Node{Namespace: e.Namespace, Name: e.Workload, Kind: "workload"}
	case e.Identity != "":
		return Node{Name: e.Identity, Kind: "identity"}
	}
	return Node{Name: cmp.Or(host(e.Address), "?"), Kind: "address"}
}

// failed says that the client did not get what it asked for, through no fault of
// its own.
func (l *Line) failed() bool {
	if l.Verdict == "failed" || l.Verdict == "limited" {
		return true
	}
	h := l.HTTP
	if h == nil {
		return false
	}
	return h.Status >= 500 || h.Status == 0 || h.GRPCStatus != nil && serversFault(*h.GRPCStatus)
}

// serversFault tells the gRPC codes that stand for a status of 500 or more:
// unknown, deadline exceeded, unimplemented, internal, unavailable, data loss.
func serversFault(code uint32) bool {
	return slices.Contains([]uint32{2, 4, 12, 13, 14, 15}, code)
}

// host takes the port off an address.
func host(address string) string {
	if a, err := netip.ParseAddrPort(address); err == nil {
		return a.Addr().String()
	}
	return address
}
