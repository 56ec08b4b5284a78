package route

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
)

// Session keeps the requests of a client together, GEP-1619: at one backend of
// the rule, so that a client does not change versions in a split, and at one
// endpoint of it.
type Session struct {
	// Name of the cookie, or of the header in lower case.
	Name string
	// Cookie or else header.
	Cookie bool
	// Permanent cookies outlive the client's session, until AbsoluteTimeout.
	Permanent bool
	// Path of the cookie.
	Path string
	// AbsoluteTimeout and IdleTimeout end sessions; 0: they do not end.
	AbsoluteTimeout, IdleTimeout time.Duration
}

// Token is what a client brings back. It says where requests go and nothing
// else, so it is not secret and not signed: a client that makes one up reaches a
// backend that the rule would have sent others to, never one of weight 0 or
// of another rule.
type Token struct {
	// Backend is the Backend.ID, Endpoint is the HashEndpoint of an endpoint of it;
	// 0 is none.
	Backend, Endpoint uint64
	// Created and Used are whole seconds.
	Created, Used time.Time
}

// tokenVersion is the first byte of a token; others are not known.
const tokenVersion = 1

// tokenSize: version, backend, endpoint, created, used, and a checksum that keeps
// what other software has put under the same name from being taken for a token.
const tokenSize = 1 + 8 + 8 + 8 + 8 + 4

var tokenText = base64.RawURLEncoding.Strict()

// String gives the token as it is sent, in the characters of base64url.
func (t Token) String() string {
	b := make([]byte, 0, tokenSize)
	b = append(b, tokenVersion)
	b = binary.BigEndian.AppendUint64(b, t.Backend)
	b = binary.BigEndian.AppendUint64(b, t.Endpoint)
	b = binary.BigEndian.AppendUint64(b, uint64(unix(t.Created)))
	b = binary.BigEndian.AppendUint64(b, uint64(unix(t.Used)))
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return tokenText.EncodeToString(b)
}

// unix gives seconds; the zero time is 0.
func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func fromUnix(seconds uint64) time.Time {
	// Beyond the year 9999, where time begins to lie, a token lies.
	const last = 253402300799
	if seconds == 0 || seconds > last {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0).UTC()
}

// ParseToken reads a token. What is no token, or one of another version, is as
// none: the client gets a new one.
func ParseToken(s string) (Token, bool) {
	if len(s) != tokenText.EncodedLen(tokenSize) {
		return Token{}, false
	}
	b, err := tokenText.DecodeString(s)
	if err != nil || b[0] != tokenVersion || binary.BigEndian.Uint32(b[33:]) != crc32.ChecksumIEEE(b[:33]) {
		return Token{}, false
	}
	t := Token{
		Backend: binary.BigEndian.Uint64(b[1:]), Endpoint: binary.BigEndian.Uint64(b[9:]),
		Created: fromUnix(binary.BigEndian.Uint64(b[17:])), Used: fromUnix(binary.BigEndian.Uint64(b[25:])),
	}
	return t, true
}

// HashEndpoint gives what a token says of an endpoint, by a name that stays the
// same, such as its workload's uid. It is never 0.
func HashEndpoint(name string) uint64 { return max(hash64(name), 1) }

// hash64 is FNV-1a, which is the same in every waypoint and every release.
func hash64(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// Read gives the token of a request. A header or cookie that has something else
// under the session's name is as none.
func (s *Session) Read(req *message.Request) (Token, bool) {
	if !s.Cookie {
		return ParseToken(trimSpace(req.Fields.Get(s.Name)))
	}
	value, _ := Cookie(req.Fields, s.Name)
	return ParseToken(value)
}

// Expired says that a session is over. A time in the future is no reason: clocks
// of waypoints differ. A token without a time is over when time matters.
func (s *Session) Expired(t Token, now time.Time) bool {
	return s.AbsoluteTimeout > 0 && now.Sub(t.Created) >= s.AbsoluteTimeout ||
		s.IdleTimeout > 0 && now.Sub(t.Used) >= s.IdleTimeout
}

// Write puts a token into a response. secure says that the client came by TLS all
// the way.
func (s *Session) Write(t Token, now time.Time, secure bool, fields *message.Fields) {
	if !s.Cookie {
		fields.Set(s.Name, t.String())
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s=%s; Path=%s; HttpOnly; SameSite=Lax", s.Name, t, s.Path)
	if secure {
		b.WriteString("; Secure")
	}
	if s.Permanent {
		rest := max(s.AbsoluteTimeout-now.Sub(t.Created), 0)
		b.WriteString("; Max-Age=" + strconv.FormatInt(int64(rest/time.Second), 10))
	}
	fields.Add("set-cookie", b.String())
}

func (c *compiler) session(at string, pb *waypoint.SessionPersistence) *Session {
	if pb == nil {
		return nil
	}
	s := &Session{
		Name:            pb.GetName(),
		AbsoluteTimeout: c.duration(at+".absolute_timeout", pb.GetAbsoluteTimeout()),
		IdleTimeout:     c.duration(at+".idle_timeout", pb.GetIdleTimeout()),
	}
	switch t := pb.GetType().(type) {
	case *waypoint.SessionPersistence_Cookie:
		s.Cookie, s.Permanent, s.Path = true, t.Cookie.GetPermanent(), t.Cookie.GetPath()
		if s.Path == "" {
			s.Path = "/"
		}
		if !cookieName(s.Name) {
			c.problem(at+".name", fmt.Sprintf("%q cannot be the name of a cookie; use letters, digits, - and _", s.Name))
		}
		if s.Path[0] != '/' || strings.ContainsFunc(s.Path, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ';' }) {
			c.problem(at+".cookie.path", fmt.Sprintf("%q cannot be the path of a cookie; use a path such as /cart", s.Path))
		}
		if s.Permanent && s.AbsoluteTimeout == 0 {
			c.problem(at+".absolute_timeout", "is missing, and a permanent cookie needs an end; set it")
		}
	case *waypoint.SessionPersistence_Header:
		s.Name = c.headerName(at+".name", s.Name)
	default:
		c.problem(at, "neither cookie nor header is set; set one of them")
	}
	return s
}
