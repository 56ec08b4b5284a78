package sniff

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Config says what to look for.
type Config struct {
	// Interface is the link.
	Interface string
	// Needles are known plaintext.
	Needles []string
	// MeshPort is the port that carries TLS, and QUIC over UDP.
	MeshPort uint16
	// Ignore are addresses whose traffic is not between the nodes' pods.
	Ignore []netip.Addr
}

// Report is what was seen since the report before.
type Report struct {
	// Segments and Bytes count TCP segments and UDP datagrams with a payload. DNS,
	// which asks for names in the open, is not among them.
	Segments int `json:"segments"`
	Bytes    int `json:"bytes"`
	// MeshBytes are those to or from the mesh port.
	MeshBytes int `json:"meshBytes"`
	// OpenBytes are all others, and OpenFlows says between whom.
	OpenBytes int            `json:"openBytes"`
	OpenFlows map[string]int `json:"openFlows"`
	// Found counts the needles, and Excerpts shows where the first of each stood.
	Found    map[string]int    `json:"found"`
	Excerpts map[string]string `json:"excerpts"`
	TLS      TLS               `json:"tls"`
	QUIC     QUIC              `json:"quic"`
	// Unread are bytes of mesh connections whose beginning was not seen, or that
	// the capture lost.
	Unread int `json:"unreadBytes"`
	// Dropped are frames that the kernel could not hand over in time.
	Dropped int `json:"droppedFrames"`
}

// analysis is what is known of all connections.
type analysis struct {
	cfg     Config
	report  Report
	streams map[direction]*stream
}

type direction struct{ src, dst netip.AddrPort }

// stream is one direction of a connection.
type stream struct {
	next    uint32 // sequence number that comes next
	synced  bool   // the beginning was seen and nothing was lost since
	records records
	tail    []byte // the last bytes, in which a needle may begin
	early   map[uint32][]byte
}

// portDNS is where names are asked for.
const portDNS = 53

// maxEarly bounds what is kept of segments that came before their time.
const maxEarly = 64

func newAnalysis(cfg Config) *analysis {
	return &analysis{cfg: cfg, report: emptyReport(), streams: make(map[direction]*stream)}
}

func emptyReport() Report {
	return Report{OpenFlows: map[string]int{}, Found: map[string]int{}, Excerpts: map[string]string{}}
}

// take gives the report, and begins the next.
func (a *analysis) take() Report {
	r := a.report
	a.report = emptyReport()
	return r
}

// frame takes one frame.
func (a *analysis) frame(f []byte) {
	s, ok := parseFrame(f)
	if !ok || slices.Contains(a.cfg.Ignore, s.src.Addr()) || slices.Contains(a.cfg.Ignore, s.dst.Addr()) {
		return
	}
	if s.udp {
		a.datagram(s)
		return
	}
	d := direction{s.src, s.dst}
	st := a.streams[d]
	if st == nil || s.syn {
		st = &stream{next: s.seq, synced: s.syn}
		a.streams[d] = st
	}
	if s.syn {
		st.next = s.seq + 1
		s.seq++
	}
	if len(s.payload) > 0 {
		a.count(s)
		a.order(st, s)
	}
	if s.fin || s.rst {
		delete(a.streams, d)
	}
}

func (a *analysis) datagram(s segment) {
	if len(s.payload) == 0 || s.src.Port() == portDNS || s.dst.Port() == portDNS {
		return
	}
	a.count(s)
	a.search(&stream{}, s)
	if a.mesh(s) {
		a.report.QUIC.add(s.payload)
	}
}

// mesh reports whether the segment belongs to a mesh connection.
func (a *analysis) mesh(s segment) bool {
	return s.src.Port() == a.cfg.MeshPort || s.dst.Port() == a.cfg.MeshPort
}

func (a *analysis) count(s segment) {
	a.report.Segments++
	a.report.Bytes += len(s.payload)
	if a.mesh(s) {
		a.report.MeshBytes += len(s.payload)
		return
	}
	a.report.OpenBytes += len(s.payload)
	server := s.dst
	if s.src.Port() < s.dst.Port() {
		server = s.src
	}
	port := fmt.Sprintf("port %d", server.Port())
	if s.udp {
		port = "udp " + port
	}
	a.report.OpenFlows[port] += len(s.payload)
}

// order hands on what is next in the stream, and keeps what came too early.
func (a *analysis) order(st *stream, s segment) {
	ahead := int32(s.seq - st.next)
	switch {
	case ahead > 0 && st.synced && len(st.early) < maxEarly:
		if st.early == nil {
			st.early = make(map[uint32][]byte)
		}
		st.early[s.seq] = bytes.Clone(s.payload)
		return
	case ahead > 0:
		st.synced = false // something is missing for good
	case ahead < 0:
		if int(-ahead) >= len(s.payload) {
			return // sent again
		}
		s.payload = s.payload[-ahead:]
	}
	a.data(st, s)
	st.next = s.seq + uint32(len(s.payload))
	if ahead < 0 {
		st.next = s.seq + uint32(-ahead) + uint32(len(s.payload))
	}
	if held, ok := st.early[st.next]; ok {
		delete(st.early, st.next)
		s.seq, s.payload = st.next, held
		a.order(st, s)
	}
}

func (a *analysis) data(st *stream, s segment) {
	a.search(st, s)
	if !a.mesh(s) {
		return
	}
	if !st.synced {
		a.report.Unread += len(s.payload)
		return
	}
	st.records.feed(s.payload, &a.report.TLS)
}

// search looks for needles, also where two segments meet.
func (a *analysis) search(st *stream, s segment) {
	text := slices.Concat(st.tail, s.payload)
	longest := 0
	for _, n := range a.cfg.Needles {
		longest = max(longest, len(n))
		// What lies in the tail alone was counted before.
		from := max(0, len(st.tail)-len(n)+1)
		count := bytes.Count(text[from:], []byte(n))
		if count == 0 {
			continue
		}
		if a.report.Found[n] == 0 {
			a.report.Excerpts[n] = fmt.Sprintf("%s > %s  %s", s.src, s.dst, excerpt(text[from:], n))
		}
		a.report.Found[n] += count
	}
	st.tail = bytes.Clone(text[max(0, len(text)-max(0, longest-1)):])
}

// excerpt gives the printable line around a needle.
func excerpt(text []byte, needle string) string {
	const around = 24
	i := bytes.Index(text, []byte(needle))
	part := text[max(0, i-around):min(len(text), i+len(needle)+around)]
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '.'
		}
		return r
	}, string(part))
}
