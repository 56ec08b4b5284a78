package h2wire

import "encoding/binary"

// Frame types, RFC 9113 section 6.
const (
	FrameData         = 0x0
	FrameHeaders      = 0x1
	FramePriority     = 0x2
	FrameRSTStream    = 0x3
	FrameSettings     = 0x4
	FramePushPromise  = 0x5
	FramePing         = 0x6
	FrameGoAway       = 0x7
	FrameWindowUpdate = 0x8
	FrameContinuation = 0x9
)

// Flags.
const (
	FlagEndStream  = 0x1
	FlagAck        = 0x1
	FlagEndHeaders = 0x4
	FlagPadded     = 0x8
	FlagPriority   = 0x20
)

// Settings, RFC 9113 section 6.5.2 and RFC 8441 section 3.
const (
	SettingHeaderTableSize       = 0x1
	SettingEnablePush            = 0x2
	SettingMaxConcurrentStreams  = 0x3
	SettingInitialWindowSize     = 0x4
	SettingMaxFrameSize          = 0x5
	SettingMaxHeaderListSize     = 0x6
	SettingEnableConnectProtocol = 0x8
)

// Sizes that RFC 9113 gives.
const (
	FrameHeaderLen = 9
	MaxWindow      = 1<<31 - 1
	DefaultWindow  = 65535
	// MinMaxFrame and MaxMaxFrame bound SETTINGS_MAX_FRAME_SIZE.
	MinMaxFrame = 1 << 14
	MaxMaxFrame = 1<<24 - 1
	Preface     = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
)

// FrameHeader is what each frame begins with, RFC 9113 section 4.1.
type FrameHeader struct {
	Length int
	Type   byte
	Flags  byte
	Stream uint32
}

// ParseFrameHeader reads the 9 bytes of b.
func ParseFrameHeader(b []byte) FrameHeader {
	_ = b[8]
	return FrameHeader{
		Length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		Type:   b[3],
		Flags:  b[4],
		Stream: binary.BigEndian.Uint32(b[5:]) & (1<<31 - 1),
	}
}

// PutFrameHeader writes the header into the first 9 bytes of b.
func PutFrameHeader(b []byte, h FrameHeader) {
	_ = b[8]
	b[0], b[1], b[2] = byte(h.Length>>16), byte(h.Length>>8), byte(h.Length)
	b[3], b[4] = h.Type, h.Flags
	binary.BigEndian.PutUint32(b[5:], h.Stream)
}

// AppendFrameHeader appends the header to b.
func AppendFrameHeader(b []byte, h FrameHeader) []byte {
	n := len(b)
	b = append(b, make([]byte, FrameHeaderLen)...)
	PutFrameHeader(b[n:], h)
	return b
}

// AppendWindowUpdate gives n more bytes to the peer, RFC 9113 section 6.9.
func AppendWindowUpdate(b []byte, stream uint32, n int) []byte {
	b = AppendFrameHeader(b, FrameHeader{Length: 4, Type: FrameWindowUpdate, Stream: stream})
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

// AppendRSTStream ends a stream, RFC 9113 section 6.4.
func AppendRSTStream(b []byte, stream uint32, code ErrCode) []byte {
	b = AppendFrameHeader(b, FrameHeader{Length: 4, Type: FrameRSTStream, Stream: stream})
	return binary.BigEndian.AppendUint32(b, uint32(code))
}

// AppendPing appends a PING or its answer, RFC 9113 section 6.7.
func AppendPing(b []byte, flags byte, data [8]byte) []byte {
	b = AppendFrameHeader(b, FrameHeader{Length: 8, Type: FramePing, Flags: flags})
	return append(b, data[:]...)
}

// AppendGoAway says goodbye, RFC 9113 section 6.8.
func AppendGoAway(b []byte, lastStream uint32, code ErrCode, debug string) []byte {
	b = AppendFrameHeader(b, FrameHeader{Length: 8 + len(debug), Type: FrameGoAway})
	b = binary.BigEndian.AppendUint32(b, lastStream)
	b = binary.BigEndian.AppendUint32(b, uint32(code))
	return append(b, debug...)
}

// Setting is one entry of SETTINGS.
type Setting struct {
	ID    uint16
	Value uint32
}

// AppendSettings appends a SETTINGS frame, RFC 9113 section 6.5.
func AppendSettings(b []byte, settings ...Setting) []byte {
	b = AppendFrameHeader(b, FrameHeader{Length: 6 * len(settings), Type: FrameSettings})
	for _, s := range settings {
		b = binary.BigEndian.AppendUint16(b, s.ID)
		b = binary.BigEndian.AppendUint32(b, s.Value)
	}
	return b
}
