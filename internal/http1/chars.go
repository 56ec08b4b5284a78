package http1

// lower gives for each byte of a token (RFC 9110 section 5.6.2) its lower case, and
// 0 for all other bytes.
var lower = func() (t [256]byte) {
	for c := range byte(128) {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z':
			t[c] = c
		case c >= 'A' && c <= 'Z':
			t[c] = c | 0x20
		}
	}
	for _, c := range []byte("!#$%&'*+-.^_`|~") {
		t[c] = c
	}
	return t
}()

// What a byte may be in.
const (
	inValue  = 1 << iota // RFC 9110 section 5.5: visible, obs-text, space and tab
	inTarget             // visible ASCII without "#", which no target has (RFC 9112 section 3.2)
	inName               // a host name, stricter than RFC 3986 section 3.2.2: nobody needs more
	inAddr               // an IP literal between brackets, without a zone
)

var class = func() (t [256]uint8) {
	for i := range t {
		c := byte(i)
		alpha := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		digit := c >= '0' && c <= '9'
		if c == '\t' || c >= ' ' && c != 0x7f {
			t[c] |= inValue
		}
		if c > ' ' && c < 0x7f && c != '#' {
			t[c] |= inTarget
		}
		if alpha || digit || c == '-' || c == '.' || c == '_' || c == '~' {
			t[c] |= inName
		}
		if c|0x20 >= 'a' && c|0x20 <= 'f' && alpha || digit || c == ':' || c == '.' {
			t[c] |= inAddr
		}
	}
	return t
}()

// hexDigit gives the value of a hexadecimal digit, 0xff for other bytes.
var hexDigit = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i, c := range []byte("0123456789abcdef") {
		t[c] = byte(i)
	}
	for i, c := range []byte("ABCDEF") {
		t[c] = byte(10 + i)
	}
	return t
}()

func only(s string, want uint8) bool {
	for i := range len(s) {
		if class[s[i]]&want == 0 {
			return false
		}
	}
	return true
}

func isToken(s string) bool {
	for i := range len(s) {
		if lower[s[i]] == 0 {
			return false
		}
	}
	return s != ""
}

// sameFold reports whether s is want, which is in lower case, without regard to
// case. Only ASCII: a Kelvin sign is no k.
func sameFold(s, want string) bool {
	if len(s) != len(want) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c != want[i] && (lower[c] != want[i] || lower[c] == 0) {
			return false
		}
	}
	return true
}

// trim takes the optional white space (RFC 9110 section 5.6.3) off both ends.
func trim(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}
