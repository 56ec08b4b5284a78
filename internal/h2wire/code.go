package h2wire

import "fmt"

// ErrCode is an HTTP/2 error code, RFC 9113 section 7.
type ErrCode uint32

// The codes that are used here.
const (
	CodeNo              ErrCode = 0x0
	CodeProtocol        ErrCode = 0x1
	CodeInternal        ErrCode = 0x2
	CodeFlowControl     ErrCode = 0x3
	CodeSettingsTimeout ErrCode = 0x4
	CodeStreamClosed    ErrCode = 0x5
	CodeFrameSize       ErrCode = 0x6
	CodeRefusedStream   ErrCode = 0x7
	CodeCancel          ErrCode = 0x8
	CodeCompression     ErrCode = 0x9
	CodeConnect         ErrCode = 0xa
	CodeEnhanceYourCalm ErrCode = 0xb
)

var codeNames = [...]string{
	"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
	"FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
}

// String gives the name of RFC 9113.
func (c ErrCode) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("error code %#x", uint32(c))
}
