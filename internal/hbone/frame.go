package hbone

import "encoding/binary"

// Frame types, RFC 9113 section 6.
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	framePriority     = 0x2
	frameRSTStream    = 0x3
	frameSettings     = 0x4
	framePushPromise  = 0x5
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindowUpdate = 0x8
	frameContinuation = 0x9
)

const (
	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// Settings, RFC 9113 section 6.5.2.
const (
	settingHeaderTableSize      = 0x1
	settingEnablePush           = 0x2
	settingMaxConcurrentStreams = 0x3
	settingInitialWindowSize    = 0x4
	settingMaxFrameSize         = 0x5
	settingMaxHeaderListSize    = 0x6
)

const (
	frameHeaderLen = 9
	maxWindow      = 1<<31 - 1
	defaultWindow  = 65535
	// minMaxFrame and maxMaxFrame bound SETTINGS_MAX_FRAME_SIZE.
	minMaxFrame = 1 << 14
	maxMaxFrame = 1<<24 - 1
	// ourMaxFrame is the largest DATA frame we accept. Other frames are bounded
	// more tightly where they are parsed.
	ourMaxFrame = 1 << 20
	preface     = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
)

type frameHeader struct {
	length int
	typ    byte
	flags  byte
	stream uint32
}

// parseFrameHeader reads the 9 bytes of b.
func parseFrameHeader(b []byte) frameHeader {
	_ = b[8]
	return frameHeader{
		length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		typ:    b[3],
		flags:  b[4],
		stream: binary.BigEndian.Uint32(b[5:]) & (1<<31 - 1),
	}
}

// putFrameHeader writes the header into the first 9 bytes of b.
func putFrameHeader(b []byte, h frameHeader) {
	_ = b[8]
	b[0], b[1], b[2] = byte(h.length>>16), byte(h.length>>8), byte(h.length)
	b[3], b[4] = h.typ, h.flags
	binary.BigEndian.PutUint32(b[5:], h.stream)
}

func appendFrameHeader(b []byte, h frameHeader) []byte {
	n := len(b)
	b = append(b, make([]byte, frameHeaderLen)...)
	putFrameHeader(b[n:], h)
	return b
}

func appendWindowUpdate(b []byte, stream uint32, n int) []byte {
	b = appendFrameHeader(b, frameHeader{length: 4, typ: frameWindowUpdate, stream: stream})
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

func appendRSTStream(b []byte, stream uint32, code ErrCode) []byte {
	b = appendFrameHeader(b, frameHeader{length: 4, typ: frameRSTStream, stream: stream})
	return binary.BigEndian.AppendUint32(b, uint32(code))
}

func appendPing(b []byte, flags byte, data [8]byte) []byte {
	b = appendFrameHeader(b, frameHeader{length: 8, typ: framePing, flags: flags})
	return append(b, data[:]...)
}

func appendGoAway(b []byte, lastStream uint32, code ErrCode, debug string) []byte {
	b = appendFrameHeader(b, frameHeader{length: 8 + len(debug), typ: frameGoAway})
	b = binary.BigEndian.AppendUint32(b, lastStream)
	b = binary.BigEndian.AppendUint32(b, uint32(code))
	return append(b, debug...)
}

type setting struct {
	id    uint16
	value uint32
}

func appendSettings(b []byte, settings ...setting) []byte {
	b = appendFrameHeader(b, frameHeader{length: 6 * len(settings), typ: frameSettings})
	for _, s := range settings {
		b = binary.BigEndian.AppendUint16(b, s.id)
		b = binary.BigEndian.AppendUint32(b, s.value)
	}
	return b
}
