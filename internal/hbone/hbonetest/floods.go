package hbonetest

import "golang.org/x/net/http2"

// floodRounds is far more than any budget allows.
const floodRounds = 50000

// Flood is something that is harmless once and is said for ever. Its answer is
// the end of the connection with ENHANCE_YOUR_CALM.
type Flood struct {
	Name  string
	write func(p *Peer, round int) error
}

// Exhausts floods a connection on which stream 1 is open, and fails the test
// unless that ends with the code that it must end with.
func (f Flood) Exhausts(p *Peer) {
	p.t.Helper()
	ended := p.DrainReads()
	p.Flood(floodRounds, func(i int) error { return f.write(p, i) })
	if code, err := ended(); code != http2.ErrCodeEnhanceYourCalm {
		p.t.Errorf("GOAWAY %s and %v, want ENHANCE_YOUR_CALM", code, err)
	}
}

// Floods are those against a server; target is where streams are asked for that
// the server does not refuse at once.
func Floods(target string) []Flood {
	id := func(i int) uint32 { return uint32(2*i + 3) }
	return []Flood{
		{"PING", func(p *Peer, _ int) error { return p.Framer.WritePing(false, [8]byte{}) }},
		{"acknowledged PING", func(p *Peer, _ int) error { return p.Framer.WritePing(true, [8]byte{}) }},
		{"SETTINGS", func(p *Peer, _ int) error { return p.Framer.WriteSettings() }},
		{"SETTINGS that move every window", func(p *Peer, i int) error {
			s := make([]http2.Setting, 160)
			for j := range s {
				s[j] = http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(1000 + (i+j)%2)}
			}
			return p.Framer.WriteSettings(s...)
		}},
		{"acknowledged SETTINGS", func(p *Peer, _ int) error { return p.Framer.WriteSettingsAck() }},
		{"empty DATA", func(p *Peer, _ int) error { return p.Framer.WriteData(1, false, nil) }},
		{"DATA of padding alone", func(p *Peer, _ int) error { return p.Framer.WriteDataPadded(1, false, nil, make([]byte, 8)) }},
		{"PRIORITY", func(p *Peer, i int) error { return p.Framer.WritePriority(id(i), http2.PriorityParam{Weight: 1}) }},
		{"unknown frames", func(p *Peer, _ int) error { return p.Framer.WriteRawFrame(0xbe, 0, 0, nil) }},
		{"tiny WINDOW_UPDATE", func(p *Peer, _ int) error { return p.Framer.WriteWindowUpdate(0, 1) }},
		{"GOAWAY", func(p *Peer, _ int) error { return p.Framer.WriteGoAway(0, http2.ErrCodeNo, nil) }},
		{"rapid reset", func(p *Peer, i int) error {
			if err := p.Headers(id(i), false, ":method", "CONNECT", ":authority", target); err != nil {
				return err
			}
			return p.Framer.WriteRSTStream(id(i), http2.ErrCodeCancel)
		}},
		{"streams beyond the limit", func(p *Peer, i int) error {
			return p.Headers(id(i), false, ":method", "CONNECT", ":authority", target)
		}},
		{"requests that are none", func(p *Peer, i int) error {
			return p.Headers(id(i), true, ":method", "GET", ":scheme", "https", ":path", "/", ":authority", "x")
		}},
		{"CONTINUATION", func(p *Peer, i int) error {
			if i == 0 {
				return p.Framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: p.Block(":method", "CONNECT")})
			}
			return p.Framer.WriteContinuation(3, false, nil)
		}},
		{"a header block without end", func(p *Peer, i int) error {
			if i == 0 {
				return p.Framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: p.Block(":method", "CONNECT")})
			}
			return p.Framer.WriteContinuation(3, false, make([]byte, 4000))
		}},
		{"HPACK references that expand", func(p *Peer, i int) error {
			block := p.Block(":method", "CONNECT", ":authority", target)
			if i == 0 {
				block = append(block, p.Block("a", string(make([]byte, 3500)))...)
			}
			for range 15000 {
				block = append(block, 0x80|62) // the newest entry of the table
			}
			return p.Framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id(i), BlockFragment: block, EndHeaders: true})
		}},
	}
}
