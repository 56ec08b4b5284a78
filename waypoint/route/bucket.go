package route

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
)

// bucket finds among entries of one path the first that matches. Entries are
// grouped by what they compare for equality (their shape); within a shape a hash
// of the request's values finds those that can match, so that a look-up takes as
// many steps as there are shapes, and not entries. (Known from packet
// classifiers as tuple space search.)
type bucket struct {
	// lead is the first entry of all if it compares nothing, so that it always
	// matches; the usual case of a path that has one rule. What follows is empty
	// then, because it can never match.
	lead *entry
	// always are the shapes that are tried for every request.
	always []*shape
	// byHeader and byParam are shapes by one of the names that they need, used when
	// there are many shapes; nil when there are not.
	byHeader, byParam map[string][]*shape
}

// fewShapes are tried one by one: that is cheaper than to look at what the
// request has.
const fewShapes = 8

// shape is the entries that compare the same properties of a request.
type shape struct {
	dims []dimension
	// all are the entries of a shape without dimensions.
	all run
	// one is by the value of the only dimension; several by appendPart of all.
	one, several map[string]run
}

// run is entries in order. The first stands apart, because it is mostly the only
// one, and a step less through memory is what a look-up is made of.
type run struct {
	first *entry
	rest  []*entry
}

func (r run) with(e *entry) run {
	if r.first == nil {
		return run{first: e}
	}
	return run{r.first, append(r.rest, e)}
}

type dimensionKind uint8

const (
	byMethod dimensionKind = iota
	byService
	byRPC
	byHeader
	byParam
	// byLiteral is the beginning of the path, for expressions that begin with
	// something literal.
	byLiteral
)

// manyExpressions are told apart by how they begin; fewer are tried one by one,
// because that costs a comparison each, and a look-up costs more.
const manyExpressions = 32

// dimension is a property of requests that is compared.
type dimension struct {
	kind dimensionKind
	name string
	// longest value that is compared; what is longer is not hashed. That of
	// byLiteral is its length.
	longest int
}

func (d *dimension) value(v *view) (string, bool) {
	switch d.kind {
	case byMethod:
		return v.req.Method, true
	case byHeader:
		return v.header(d.name)
	case byParam:
		return v.param(d.name)
	case byLiteral:
		if len(v.path) < d.longest {
			return "", false
		}
		return v.path[:d.longest], true
	}
	service, method, ok := splitGRPC(v.path)
	if d.kind == byService {
		return service, ok
	}
	return method, ok
}

// empty says that there is no entry.
func (b *bucket) empty() bool {
	return b.lead == nil && len(b.always) == 0 && len(b.byHeader) == 0 && len(b.byParam) == 0
}

// newBucket takes entries in order.
func newBucket(entries []*entry) bucket {
	if len(entries) == 0 {
		return bucket{}
	}
	literals := len(entries) > manyExpressions
	if dims, _ := equalities(entries[0].match, literals); len(dims) == 0 && entries[0].plain {
		return bucket{lead: entries[0]}
	}
	shapes := map[string]*shape{}
	var inOrder []*shape
	for _, e := range entries {
		dims, values := equalities(e.match, literals)
		key := shapeKey(dims)
		s := shapes[key]
		if s == nil {
			s = &shape{dims: dims, one: map[string]run{}, several: map[string]run{}}
			shapes[key] = s
			inOrder = append(inOrder, s)
		}
		s.insert(e, values)
	}
	var b bucket
	b.spread(inOrder)
	return b
}

// equalities gives what a match compares for equality, names in order, and with
// what.
func equalities(m *match, literals bool) (dims []dimension, values []string) {
	add := func(kind dimensionKind, name, value string) {
		dims = append(dims, dimension{kind: kind, name: name})
		values = append(values, value)
	}
	if literal := m.path.literal; literals && literal != "" {
		add(byLiteral, strconv.Itoa(len(literal)), literal)
	}
	if m.method != "" {
		add(byMethod, "", m.method)
	}
	if t := m.grpc.service; t != nil && t.plain() {
		add(byService, "", t.exact)
	}
	if t := m.grpc.method; t != nil && t.plain() {
		add(byRPC, "", t.exact)
	}
	for _, part := range []struct {
		kind dimensionKind
		list []named
	}{{byHeader, m.headers}, {byParam, m.params}} {
		list := slices.Clone(part.list)
		slices.SortFunc(list, func(a, b named) int { return strings.Compare(a.name, b.name) })
		for _, n := range list {
			if n.text.plain() {
				add(part.kind, n.name, n.text.exact)
			}
		}
	}
	return dims, values
}

func shapeKey(dims []dimension) string {
	var key []byte
	for _, d := range dims {
		key = appendPart(append(key, byte(d.kind)), d.name)
	}
	return string(key)
}

func appendPart(key []byte, s string) []byte {
	return append(binary.AppendUvarint(key, uint64(len(s))), s...)
}

func (s *shape) insert(e *entry, values []string) {
	for i, value := range values {
		s.dims[i].longest = max(s.dims[i].longest, len(value))
	}
	switch len(values) {
	case 0:
		s.all = s.all.with(e)
	case 1:
		s.one[values[0]] = s.one[values[0]].with(e)
	default:
		var key []byte
		for _, value := range values {
			key = appendPart(key, value)
		}
		s.several[string(key)] = s.several[string(key)].with(e)
	}
}

// spread decides when each shape is tried: if they are many, those that need a
// header or a parameter only when the request has it. Of several names that a
// shape needs it is the one that the fewest need.
func (b *bucket) spread(shapes []*shape) {
	if len(shapes) <= fewShapes {
		b.always = shapes
		return
	}
	type key struct {
		kind dimensionKind
		name string
	}
	count := map[key]int{}
	for _, s := range shapes {
		for _, d := range s.dims {
			count[key{d.kind, d.name}]++
		}
	}
	b.byHeader, b.byParam = map[string][]*shape{}, map[string][]*shape{}
	for _, s := range shapes {
		var best *dimension
		for i := range s.dims {
			d := &s.dims[i]
			anchor := d.kind == byParam || d.kind == byHeader && !derived(d.name)
			if anchor && (best == nil || count[key{d.kind, d.name}] < count[key{best.kind, best.name}]) {
				best = d
			}
		}
		switch {
		case best == nil:
			b.always = append(b.always, s)
		case best.kind == byHeader:
			b.byHeader[best.name] = append(b.byHeader[best.name], s)
		default:
			b.byParam[best.name] = append(b.byParam[best.name], s)
		}
	}
}

// first gives the first entry that matches; nil is none.
func (b *bucket) first(v *view) *entry {
	if b.lead != nil {
		return b.lead
	}
	best := firstOf(b.always, v, nil)
	if len(b.byHeader) > 0 {
		best = b.firstByHeader(v, best)
	}
	if len(b.byParam) > 0 {
		best = b.firstByParam(v, best)
	}
	return best
}

// firstByHeader tries the shapes that need a header that the request has.
func (b *bucket) firstByHeader(v *view, best *entry) *entry {
	for name := range v.headers {
		best = firstOf(b.byHeader[name], v, best)
	}
	if v.headers == nil {
		// A header that has several lines has its shapes tried again, which changes
		// nothing.
		for i := range v.req.Fields {
			best = firstOf(b.byHeader[v.req.Fields[i].Name], v, best)
		}
	}
	return best
}

// firstByParam tries the shapes that need a parameter that the query has.
func (b *bucket) firstByParam(v *view, best *entry) *entry {
	for name := range v.params {
		best = firstOf(b.byParam[name], v, best)
	}
	for rest := v.query; rest != "" && v.params == nil; {
		var pair string
		pair, rest, _ = strings.Cut(rest, "&")
		key, _, _ := strings.Cut(pair, "=")
		if name, ok := decodeQuery(key); ok {
			best = firstOf(b.byParam[name], v, best)
		}
	}
	return best
}

func firstOf(shapes []*shape, v *view, best *entry) *entry {
	for _, s := range shapes {
		best = s.first(v, best)
	}
	return best
}

// first gives the first entry that matches if it comes before best, or else
// best.
func (s *shape) first(v *view, best *entry) *entry {
	r := s.candidates(v)
	if r.first == nil || best != nil && r.first.order >= best.order {
		return best
	}
	if r.first.meets(v) {
		return r.first
	}
	for _, e := range r.rest {
		if best != nil && e.order >= best.order {
			break
		}
		if e.meets(v) {
			return e
		}
	}
	return best
}

// meets completes the check of an entry that was found by what it compares for
// equality, in the bucket of its path.
func (e *entry) meets(v *view) bool { return e.plain || e.match.holds(v) }

func (s *shape) candidates(v *view) run {
	switch len(s.dims) {
	case 0:
		return s.all
	case 1:
		value, ok := s.dims[0].value(v)
		if !ok {
			return run{}
		}
		return s.one[value]
	}
	var buffer [256]byte
	key := buffer[:0]
	for i := range s.dims {
		value, ok := s.dims[i].value(v)
		if !ok || len(value) > s.dims[i].longest {
			return run{}
		}
		key = appendPart(key, value)
	}
	return s.several[string(key)]
}
