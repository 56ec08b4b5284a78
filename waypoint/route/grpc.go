package route

import (
	"strings"

	"github.com/ambit-mesh/ambit/internal/message"
)

// Code is a status code of gRPC.
type Code uint32

// The codes, as gRPC numbers them.
const (
	OK Code = iota
	Canceled
	Unknown
	InvalidArgument
	DeadlineExceeded
	NotFound
	AlreadyExists
	PermissionDenied
	ResourceExhausted
	FailedPrecondition
	Aborted
	OutOfRange
	Unimplemented
	Internal
	Unavailable
	DataLoss
	Unauthenticated
)

var codeNames = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
	"INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

// String gives the code's name, such as UNAVAILABLE.
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return "UNKNOWN"
}

// OfServer reports whether a code blames the server, and not the caller or the
// call.
func (c Code) OfServer() bool { return c == Unknown || c == Internal || c == Unavailable }

// ParseCode reads the name of a code in any case. CANCELED is accepted beside
// CANCELLED.
func ParseCode(name string) (Code, bool) {
	if strings.EqualFold(name, "CANCELED") {
		return Canceled, true
	}
	for i, n := range codeNames {
		if strings.EqualFold(name, n) {
			return Code(i), true
		}
	}
	return Unknown, false
}

// CodeOfStatus gives the code that an HTTP status without grpc-status stands for
// (gRPC, "HTTP to gRPC Status Code Mapping"). What the waypoint refuses by 413
// and 431 are limits.
func CodeOfStatus(status int) Code {
	switch status {
	case 200:
		return OK
	case 400:
		return Internal
	case 401:
		return Unauthenticated
	case 403:
		return PermissionDenied
	case 404:
		return Unimplemented
	case 413, 431:
		return ResourceExhausted
	case 429, 502, 503, 504:
		return Unavailable
	}
	return Unknown
}

// IsGRPC says that a request is one of gRPC, by its content-type: application/grpc
// alone, with +proto and the like, or with parameters. gRPC-Web is not.
func IsGRPC(req *message.Request) bool {
	const grpc = "application/grpc"
	ct := req.Fields.Get("content-type")
	if len(ct) < len(grpc) || !strings.EqualFold(ct[:len(grpc)], grpc) {
		return false
	}
	return len(ct) == len(grpc) || ct[len(grpc)] == '+' || ct[len(grpc)] == ';'
}

// EncodeMessage gives text in the form of grpc-message: bytes other than
// printable ASCII, and the percent sign, are percent-encoded.
func EncodeMessage(text string) string {
	plain := func(b byte) bool { return b >= ' ' && b <= '~' && b != '%' }
	i := 0
	for i < len(text) && plain(text[i]) {
		i++
	}
	if i == len(text) {
		return text
	}
	var b strings.Builder
	b.Grow(len(text) + 16)
	b.WriteString(text[:i])
	for ; i < len(text); i++ {
		if plain(text[i]) {
			b.WriteByte(text[i])
			continue
		}
		writeEscape(&b, text[i])
	}
	return b.String()
}

// splitGRPC takes a path apart into service and method, as grpc-go does: the
// method is behind the last slash.
func splitGRPC(path string) (service, method string, ok bool) {
	if len(path) == 0 || path[0] != '/' {
		return "", "", false
	}
	path = path[1:]
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", "", false
	}
	return path[:i], path[i+1:], true
}
