package authz

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/apis/security"
)

// Request is what is known of a request beside the connection that it came over.
// Functions may be nil, which is a request without headers or claims.
type Request struct {
	// Method as it was sent.
	Method string
	// Path as the application will see it: decoded and without dot segments. What
	// is compared here and what is sent on must be the same text, or a policy can
	// be talked past. A query is disregarded.
	Path string
	// Host that the request is for; its case and its port are disregarded.
	Host string
	// GRPCService and GRPCMethod of a gRPC request; "" of another one.
	GRPCService, GRPCMethod string
	// Header gives the lines of a header by its name in lower case.
	Header func(name string) []string
	// Claim gives a claim of the verified token of an issuer, none if there is no
	// such token: one value, or the members of a list.
	Claim func(issuer, name string) []string
}

// facts are what a rule is tried against.
type facts struct {
	Connection
	// request, if there is one: not of a connection as such.
	request Request
	asked   bool
}

// requestMatch is a compiled RequestMatch.
type requestMatch struct {
	// denies: it holds where there is no request, and leans towards matching.
	denies   bool
	methods  []string
	paths    []string
	prefixes []string // without the slash at the end
	hosts    []string
	suffixes []string // with the dot
	grpc     []grpcKey
	headers  []headerMatch
	claims   []claimMatch
	// Fields that are set; a field of which nothing can match is set, too.
	onPath, onHost bool
}

type grpcKey struct{ service, method string }

type headerMatch struct {
	name   string
	values []string
}

type claimMatch struct {
	issuer, name string
	values       []string
}

func compileRequest(in *security.RequestMatch, action Action) (*requestMatch, error) {
	m := &requestMatch{denies: action == Deny, methods: in.GetMethods(), onPath: len(in.GetPaths()) > 0, onHost: len(in.GetHosts()) > 0}
	for i, p := range in.GetPaths() {
		switch v := p.GetType().(type) {
		case *security.RequestPath_Exact:
			m.paths = append(m.paths, v.Exact)
		case *security.RequestPath_Prefix:
			m.prefixes = append(m.prefixes, strings.TrimSuffix(v.Prefix, "/"))
		default:
			return nil, fmt.Errorf("paths[%d]: %w", i, errUnknownMatch)
		}
	}
	for _, h := range in.GetHosts() {
		h = strings.ToLower(h)
		if suffix, ok := strings.CutPrefix(h, "*"); ok {
			m.suffixes = append(m.suffixes, suffix)
		} else {
			m.hosts = append(m.hosts, h)
		}
	}
	for _, g := range in.GetGrpcMethods() {
		m.grpc = append(m.grpc, grpcKey{g.GetService(), g.GetMethod()})
	}
	for _, h := range in.GetHeaders() {
		m.headers = append(m.headers, headerMatch{strings.ToLower(h.GetName()), h.GetValues()})
	}
	for _, c := range in.GetClaims() {
		m.claims = append(m.claims, claimMatch{c.GetIssuer(), c.GetName(), c.GetValues()})
	}
	if len(m.methods)+len(m.grpc)+len(m.headers)+len(m.claims) == 0 && !m.onPath && !m.onHost {
		return nil, fmt.Errorf("nothing is set")
	}
	return m, nil
}

// matches tries the cheapest fields first. Without a request nobody knows: that
// is a match where it denies, and none where it allows.
func (m *requestMatch) matches(c *facts) bool {
	if !c.asked {
		return m.denies
	}
	r := &c.request
	if len(m.methods) > 0 && !m.hasMethod(r.Method) || m.onPath && !m.hasPath(r.Path) || m.onHost && !m.hasHost(r.Host) {
		return false
	}
	if len(m.grpc) > 0 && !m.hasGRPC(r) {
		return false
	}
	for i := range m.headers {
		if !m.headers[i].matches(r, m.denies) {
			return false
		}
	}
	for i := range m.claims {
		if !m.claims[i].matches(r) {
			return false
		}
	}
	return true
}

// hasMethod takes another case for the same where it denies: some applications
// do.
func (m *requestMatch) hasMethod(method string) bool {
	for _, want := range m.methods {
		if want == method || m.denies && strings.EqualFold(want, method) {
			return true
		}
	}
	return false
}

func (m *requestMatch) hasPath(path string) bool {
	if slices.Contains(m.paths, path) {
		return true
	}
	for _, p := range m.prefixes {
		if p == "" || strings.HasPrefix(path, p) && (len(path) == len(p) || path[len(p)] == '/') {
			return true
		}
	}
	return false
}

func (m *requestMatch) hasHost(host string) bool {
	if slices.Contains(m.hosts, host) {
		return true
	}
	for _, s := range m.suffixes {
		if len(host) > len(s) && strings.HasSuffix(host, s) {
			return true
		}
	}
	return false
}

func (m *requestMatch) hasGRPC(r *Request) bool {
	if r.GRPCService == "" && r.GRPCMethod == "" {
		return false
	}
	for _, g := range m.grpc {
		if (g.service == "" || g.service == r.GRPCService) && (g.method == "" || g.method == r.GRPCMethod) {
			return true
		}
	}
	return false
}

// matches wants all lines of a header to be right where it allows, because nobody
// knows which of them the application reads, and one that is where it denies.
func (h *headerMatch) matches(r *Request, denies bool) bool {
	if r.Header == nil {
		return false
	}
	lines := r.Header(h.name)
	for _, line := range lines {
		if denies && h.hasMember(line) {
			return true
		}
		if !denies && !slices.Contains(h.values, line) {
			return false
		}
	}
	return !denies && len(lines) > 0
}

// hasMember looks for a value as the line, or as a member of the list that it may
// be (RFC 9110 section 5.6.1).
func (h *headerMatch) hasMember(line string) bool {
	if slices.Contains(h.values, line) {
		return true
	}
	for member := range strings.SplitSeq(line, ",") {
		if slices.Contains(h.values, strings.Trim(member, " \t")) {
			return true
		}
	}
	return false
}

func (c *claimMatch) matches(r *Request) bool {
	if r.Claim == nil {
		return false
	}
	for _, v := range r.Claim(c.issuer, c.name) {
		if slices.Contains(c.values, v) {
			return true
		}
	}
	return false
}

// normal gives the request in the form that matches compare.
func (r Request) normal() Request {
	if i := strings.IndexAny(r.Path, "?#"); i >= 0 {
		r.Path = r.Path[:i]
	}
	host := r.Host
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.Contains(host[i:], "]") {
		host = host[:i]
	}
	r.Host = strings.ToLower(strings.TrimSuffix(host, "."))
	return r
}

// twofold reports whether applications differ about what a path means: many take
// several slashes for one (nginx, Go), or leave out the parameters of segments
// (Java servlets; RFC 3986 section 3.3).
func twofold(path string) bool {
	return strings.Contains(path, "//") || strings.IndexByte(path, ';') >= 0
}

// lenient is the path as such an application reads it, dot segments that come to
// light included.
func lenient(path string) string {
	var out []string
	for _, segment := range strings.Split(path, "/") {
		segment, _, _ = strings.Cut(segment, ";")
		switch segment {
		case "", ".":
		case "..":
			out = out[:max(0, len(out)-1)]
		default:
			out = append(out, segment)
		}
	}
	text := "/" + strings.Join(out, "/")
	if strings.HasSuffix(path, "/") && text != "/" {
		text += "/"
	}
	return text
}
