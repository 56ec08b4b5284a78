package trace

import (
	"encoding/hex"
	"strings"
)

// Field names, in lower case.
const (
	fieldTraceparent = "traceparent"
	fieldTracestate  = "tracestate"
)

const (
	flagSampled = 1 << 0
	flagRandom  = 1 << 1
	// lenTraceparent is that of version 00: 2 + 32 + 16 + 2 digits and 3 dashes.
	lenTraceparent = 55
)

// ParseTraceparent reads a traceparent, W3C Trace Context section 3.2. Of a
// version to come it reads what version 00 has.
func ParseTraceparent(s string) (Context, bool) {
	if len(s) < lenTraceparent || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return Context{}, false
	}
	var version, flags [1]byte
	c := Context{}
	if !digits(version[:], s[:2]) || !digits(c.TraceID[:], s[3:35]) || !digits(c.SpanID[:], s[36:52]) || !digits(flags[:], s[53:55]) {
		return Context{}, false
	}
	switch {
	case version[0] == 0xff || !c.Valid(),
		version[0] == 0 && len(s) != lenTraceparent,
		len(s) > lenTraceparent && s[lenTraceparent] != '-':
		return Context{}, false
	}
	c.Decision = NotSampled
	if flags[0]&flagSampled != 0 {
		c.Decision = Sampled
	}
	c.random = flags[0]&flagRandom != 0
	return c, true
}

// digits reads lower case hexadecimal digits, two for each byte of dst.
func digits(dst []byte, s string) bool {
	for i := range dst {
		hi, lo := digit(s[2*i]), digit(s[2*i+1])
		if hi|lo > 0xf {
			return false
		}
		dst[i] = hi<<4 | lo
	}
	return true
}

// digit gives a value above 15 for what is none.
func digit(b byte) byte {
	switch {
	case '0' <= b && b <= '9':
		return b - '0'
	case 'a' <= b && b <= 'f':
		return b - 'a' + 10
	}
	return 0xff
}

// Traceparent gives the context as a field value of version 00; "" for none.
func (c Context) Traceparent() string {
	var b [lenTraceparent]byte
	return string(c.AppendTraceparent(b[:0]))
}

// AppendTraceparent appends what Traceparent gives.
func (c Context) AppendTraceparent(b []byte) []byte {
	if !c.Valid() {
		return b
	}
	b = hex.AppendEncode(append(b, "00-"...), c.TraceID[:])
	b = hex.AppendEncode(append(b, '-'), c.SpanID[:])
	flags := byte('0')
	if c.Decision == Sampled {
		flags |= flagSampled
	}
	if c.random {
		flags |= flagRandom
	}
	return append(b, '-', '0', flags)
}

const (
	// maxMembers of a tracestate, W3C Trace Context section 3.3.1.1.
	maxMembers = 32
	// maxState is more than anybody has to pass on (512, section 3.3.1.5), and
	// bounds what a peer can make us keep.
	maxState = 4096
)

// validState reports whether a tracestate keeps to W3C Trace Context section
// 3.3.1. Members may be empty.
func validState(s string) bool {
	if len(s) > maxState {
		return false
	}
	var seen [maxMembers]string
	n := 0
	for member := range strings.SplitSeq(s, ",") {
		member = strings.Trim(member, " \t")
		if member == "" {
			continue
		}
		key, value, ok := strings.Cut(member, "=")
		if !ok || !validKey(key) || !validValue(value) || n == maxMembers {
			return false
		}
		for _, k := range seen[:n] {
			if k == key {
				return false
			}
		}
		seen[n] = key
		n++
	}
	return true
}

// validKey checks key, or tenant@system, of which the latter begins with a letter.
func validKey(k string) bool {
	tenant, system, multi := strings.Cut(k, "@")
	if !multi {
		return k != "" && len(k) <= 256 && keyChars(k, false)
	}
	return tenant != "" && len(tenant) <= 241 && keyChars(tenant, true) && system != "" && len(system) <= 14 && keyChars(system, false)
}

func keyChars(k string, digitFirst bool) bool {
	for i := range len(k) {
		switch b := k[i]; {
		case 'a' <= b && b <= 'z':
		case '0' <= b && b <= '9':
			if i == 0 && !digitFirst {
				return false
			}
		case b == '_', b == '-', b == '*', b == '/':
			if i == 0 {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// validValue takes 1 to 256 printable characters without comma and equals sign.
func validValue(v string) bool {
	if v == "" || len(v) > 256 {
		return false
	}
	for i := range len(v) {
		if b := v[i]; b < 0x20 || b > 0x7e || b == ',' || b == '=' {
			return false
		}
	}
	return true
}
