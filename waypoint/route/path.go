package route

import (
	"bytes"
	"strings"
)

// PathError is a path that cannot be told for sure what the backend will make of
// it. It is answered with 400.
type PathError struct{ Reason string }

// Error says what is wrong.
func (e *PathError) Error() string { return "the request's path " + e.Reason }

// NormalizePath gives the one form of a request target (path and query) that
// policies and routes are matched against and that is forwarded, so that nothing
// sees another path than the backend does:
//
//   - percent-encodings of unreserved characters are decoded, others have capital
//     digits, and characters that do not belong into a path are encoded (RFC 3986
//     sections 2.3, 6.2.2);
//   - the segments . and .. are resolved, however they were encoded (section
//     5.2.4); .. at the root stays there;
//   - what servers are known to read differently is refused: a backslash and an
//     encoded slash, backslash or NUL, an incomplete percent-encoding, a control
//     character, a fragment, a dot segment with parameters (/..;x/), and a path
//     that does not begin with a slash.
//
// Empty segments are kept: // is not /. Reserved characters such as ; and + mean
// something else encoded than plain and are left as they are. The query is kept
// byte for byte. "*" and "" (OPTIONS and CONNECT) are their own normal form.
//
// It is idempotent, and does not allocate for a path that is normal.
func NormalizePath(raw string) (string, error) {
	if raw == "*" || raw == "" {
		return raw, nil
	}
	if raw[0] != '/' {
		return "", &PathError{"does not begin with a slash"}
	}
	if strings.IndexByte(raw, '#') >= 0 {
		return "", &PathError{"has a fragment"}
	}
	path, query := raw, ""
	if i := strings.IndexByte(raw, '?'); i >= 0 {
		path, query = raw[:i], raw[i:]
	}
	if i := badQueryByte(query); i >= 0 {
		return "", &PathError{"has a control character in its query"}
	}
	encoded, dots, err := inspectPath(path)
	if err != nil {
		return "", err
	}
	if !encoded && !dots {
		return raw, nil
	}
	if encoded {
		path = reencode(path)
	}
	if path, err = resolveDots(path); err != nil {
		return "", err
	}
	return path + query, nil
}

func badQueryByte(query string) int {
	for i := range len(query) {
		if query[i] < ' ' || query[i] == 0x7f {
			return i
		}
	}
	return -1
}

// inspectPath refuses what is to be refused, and says whether encodings have to
// change and whether there may be dot segments.
func inspectPath(path string) (encoded, dots bool, err error) {
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '%':
			b, ok := unescape(path, i)
			switch {
			case !ok:
				return false, false, &PathError{"has an incomplete percent-encoding"}
			case b == 0:
				return false, false, &PathError{"has an encoded NUL"}
			case b == '/':
				return false, false, &PathError{"has an encoded slash"}
			case b == '\\':
				return false, false, &PathError{"has an encoded backslash"}
			}
			encoded = encoded || unreserved(b) || lowerHex(path[i+1]) || lowerHex(path[i+2])
			i += 2
		case c == '\\':
			return false, false, &PathError{"has a backslash"}
		case c < ' ' || c == 0x7f:
			return false, false, &PathError{"has a control character"}
		case c == '.':
			dots = dots || path[i-1] == '/'
		case !pathByte(c):
			encoded = true
		}
	}
	return encoded, dots, nil
}

// reencode makes encodings normal in a path that inspectPath has passed.
func reencode(path string) string {
	var b strings.Builder
	b.Grow(len(path) + 16)
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c != '%' {
			if pathByte(c) {
				b.WriteByte(c)
			} else {
				writeEscape(&b, c)
			}
			continue
		}
		d, _ := unescape(path, i)
		i += 2
		if unreserved(d) {
			b.WriteByte(d)
		} else {
			writeEscape(&b, d)
		}
	}
	return b.String()
}

// resolveDots is remove_dot_segments of RFC 3986 section 5.2.4.
func resolveDots(path string) (string, error) {
	out := make([]byte, 0, len(path))
	for rest := path; rest != ""; {
		// Each turn takes a slash and the segment behind it.
		end := strings.IndexByte(rest[1:], '/') + 1
		if end == 0 {
			end = len(rest)
		}
		segment := rest[1:end]
		last := end == len(rest)
		switch bare, _, params := strings.Cut(segment, ";"); {
		case bare != "." && bare != "..":
			out = append(out, rest[:end]...)
		case params:
			return "", &PathError{"has a dot segment with parameters"}
		default:
			if bare == ".." {
				out = out[:max(0, bytes.LastIndexByte(out, '/'))]
			}
			if last {
				out = append(out, '/')
			}
		}
		rest = rest[end:]
	}
	return string(out), nil
}

// unreserved are the characters that never need an encoding, RFC 3986 section
// 2.3.
func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

// pathByte are the characters that a path has plain: pchar and the slash, RFC
// 3986 section 3.3.
func pathByte(c byte) bool {
	return unreserved(c) || strings.IndexByte("/!$&'()*+,;=:@", c) >= 0
}

func lowerHex(c byte) bool { return c >= 'a' && c <= 'f' }

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// unescape reads the percent-encoding at s[i].
func unescape(s string, i int) (byte, bool) {
	if i+2 >= len(s) {
		return 0, false
	}
	hi, ok1 := hexDigit(s[i+1])
	lo, ok2 := hexDigit(s[i+2])
	return hi<<4 | lo, ok1 && ok2
}

func writeEscape(b *strings.Builder, c byte) {
	const digits = "0123456789ABCDEF"
	b.WriteByte('%')
	b.WriteByte(digits[c>>4])
	b.WriteByte(digits[c&15])
}
