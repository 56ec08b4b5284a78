package hpack

import "errors"

// Field is a decoded field.
type Field struct {
	Name, Value string
	// Class is what Classes said of it.
	Class uint8
}

// Classes works out what a field is, for whoever uses it. A field that comes from
// a table was looked at when it got in.
type Classes struct {
	of     func(name, value string) uint8
	static [staticLen + 1]uint8
}

// NewClasses makes Classes of a function without state.
func NewClasses(of func(name, value string) uint8) *Classes {
	c := &Classes{of: of}
	for i := 1; i <= staticLen; i++ {
		c.static[i] = of(static[i].name, static[i].value)
	}
	return c
}

// Excess says which limit a block exceeded.
type Excess uint8

// Limits that can be exceeded.
const (
	Within Excess = iota
	TooLarge
	TooMany
)

// What is wrong with a block. After any of them the table is not the peer's any
// more.
var (
	errTruncated = errors.New("header block ends within a field")
	errInteger   = errors.New("integer too large")
	errIndex     = errors.New("index beyond the tables")
	errResize    = errors.New("table size update that is too large or too late")
)

// entry of the decoder's table. Its text is its own memory.
type entry struct {
	name, value string
	class       uint8
}

// Decoder decodes the header blocks of one connection, in order.
type Decoder struct {
	maxBytes, maxFields int
	classes             *Classes

	ring  []entry // grows up to ringLen
	next  int     // where the next entry goes
	count int
	size  int // RFC 7541 section 4.1
	max   int // as the peer has set it, at most tableSize

	fields []Field
	text   []byte  // literal text of the block
	spans  []spans // where in it literals lie
}

// spans are the literal parts of a field.
type spans struct {
	field       int
	name, value span
}

type span struct{ from, to int }

func (s span) size() int { return s.to - s.from }

// NewDecoder makes a decoder for blocks of at most maxBytes, counted as RFC 9113
// section 6.5.2 says, and maxFields.
func NewDecoder(maxBytes, maxFields int, classes *Classes) *Decoder {
	return &Decoder{maxBytes: maxBytes, maxFields: maxFields, classes: classes, max: tableSize}
}

// maxKept bounds the memory that a decoder keeps between blocks, in bytes of text.
const maxKept = 8 << 10

// Decode gives the fields of a block, valid until the next call. Of a block beyond
// the limits it gives none, and what was exceeded. An error means that no later
// block can be decoded.
func (d *Decoder) Decode(block []byte) ([]Field, Excess, error) {
	d.reset()
	var excess Excess
	total, n := 0, 0
	resizable := true
	for len(block) > 0 {
		if block[0]&0xe0 == 0x20 {
			rest, err := d.resize(block, resizable)
			if err != nil {
				return nil, 0, err
			}
			block = rest
			continue
		}
		resizable = false
		size, rest, err := d.field(block, excess != Within)
		if err != nil {
			return nil, 0, err
		}
		block = rest
		total, n = total+size, n+1
		switch {
		case excess != Within:
		case total > d.maxBytes:
			excess = TooLarge
		case n > d.maxFields:
			excess = TooMany
		}
	}
	if excess != Within {
		d.reset()
		return nil, excess, nil
	}
	d.settle()
	return d.fields, Within, nil
}

func (d *Decoder) reset() {
	clear(d.fields)
	d.fields, d.spans, d.text = d.fields[:0], d.spans[:0], d.text[:0]
	if cap(d.text) > maxKept {
		d.text, d.fields, d.spans = nil, nil, nil
	}
}

// settle gives the literal fields their text.
func (d *Decoder) settle() {
	if len(d.spans) == 0 {
		return
	}
	text := string(d.text)
	for i := range d.spans {
		s := &d.spans[i]
		f := &d.fields[s.field]
		if s.name.size() > 0 {
			f.Name = text[s.name.from:s.name.to]
		}
		f.Value = text[s.value.from:s.value.to]
		f.Class = d.classes.of(f.Name, f.Value)
	}
}

// resize handles a table size update, RFC 7541 section 6.3.
func (d *Decoder) resize(block []byte, allowed bool) ([]byte, error) {
	n, rest, err := integer(block, 5)
	if err != nil {
		return nil, err
	}
	if !allowed || n > tableSize {
		return nil, errResize
	}
	d.max = n
	d.evict(n)
	return rest, nil
}

// field decodes one field and gives its size. With drop it is only put into the
// table.
func (d *Decoder) field(block []byte, drop bool) (size int, rest []byte, err error) {
	switch b := block[0]; {
	case b&0x80 != 0:
		n, rest, err := integer(block, 7)
		if err != nil {
			return 0, nil, err
		}
		e, err := d.at(n)
		if err != nil {
			return 0, nil, err
		}
		if !drop {
			d.fields = append(d.fields, Field{e.name, e.value, e.class})
		}
		return len(e.name) + len(e.value) + overhead, rest, nil
	case b&0xc0 == 0x40:
		return d.literal(block, 6, true, drop)
	default: // not indexed or never indexed
		return d.literal(block, 4, false, drop)
	}
}

// literal decodes the forms of RFC 7541 section 6.2.
func (d *Decoder) literal(block []byte, prefix uint, index, drop bool) (size int, rest []byte, err error) {
	n, rest, err := integer(block, prefix)
	if err != nil {
		return 0, nil, err
	}
	if drop {
		d.text = d.text[:0]
	}
	mark := len(d.text)
	var e entry
	var name, value span
	if n > 0 {
		known, err := d.at(n)
		if err != nil {
			return 0, nil, err
		}
		e.name = known.name
	} else if name, rest, err = d.str(rest); err != nil {
		return 0, nil, err
	}
	if value, rest, err = d.str(rest); err != nil {
		return 0, nil, err
	}
	size = len(e.name) + name.size() + value.size() + overhead
	if index {
		if size > d.max {
			d.evict(0) // RFC 7541 section 4.4: no error
			index = false
		} else {
			if n == 0 {
				e.name = string(d.text[name.from:name.to])
			}
			e.value = string(d.text[value.from:value.to])
			e.class = d.classes.of(e.name, e.value)
			d.insert(e, size)
		}
	}
	switch {
	case drop:
	case index:
		d.fields = append(d.fields, Field{e.name, e.value, e.class})
		d.text = d.text[:mark] // the table's copy is used
	default:
		d.spans = append(d.spans, spans{len(d.fields), name, value})
		d.fields = append(d.fields, Field{Name: e.name})
	}
	return size, rest, nil
}

// str decodes a string literal behind the text that is there, RFC 7541 section 5.2.
func (d *Decoder) str(p []byte) (span, []byte, error) {
	if len(p) == 0 {
		return span{}, nil, errTruncated
	}
	coded := p[0]&0x80 != 0
	n, p, err := integer(p, 7)
	if err != nil {
		return span{}, nil, err
	}
	if n > len(p) {
		return span{}, nil, errTruncated
	}
	from := len(d.text)
	if coded {
		d.text, err = appendHuffman(d.text, p[:n])
	} else {
		d.text = append(d.text, p[:n]...)
	}
	return span{from, len(d.text)}, p[n:], err
}

// integer decodes RFC 7541 section 5.1.
func integer(p []byte, prefix uint) (int, []byte, error) {
	mask := byte(1)<<prefix - 1
	n := int(p[0] & mask)
	p = p[1:]
	if n < int(mask) {
		return n, p, nil
	}
	for shift := 0; len(p) > 0; shift += 7 {
		if shift > 21 {
			return 0, nil, errInteger
		}
		b := p[0]
		p = p[1:]
		n += int(b&0x7f) << shift
		if b&0x80 == 0 {
			return n, p, nil
		}
	}
	return 0, nil, errTruncated
}

// at gives entry n of both tables, RFC 7541 section 2.3.3.
func (d *Decoder) at(n int) (entry, error) {
	switch {
	case n == 0 || n > staticLen+d.count:
		return entry{}, errIndex
	case n <= staticLen:
		return entry{static[n].name, static[n].value, d.classes.static[n]}, nil
	}
	i := d.next - (n - staticLen)
	if i < 0 {
		i += len(d.ring)
	}
	return d.ring[i], nil
}

func (d *Decoder) insert(e entry, size int) {
	d.evict(d.max - size)
	if d.count == len(d.ring) {
		d.grow()
	}
	d.ring[d.next] = e
	if d.next++; d.next == len(d.ring) {
		d.next = 0
	}
	d.count++
	d.size += size
}

// grow makes room for more entries; most connections need few.
func (d *Decoder) grow() {
	ring := make([]entry, min(max(2*len(d.ring), 16), ringLen))
	for i := range d.count {
		at := d.next - d.count + i
		if at < 0 {
			at += len(d.ring)
		}
		ring[i] = d.ring[at]
	}
	d.ring, d.next = ring, d.count
}

// evict drops the oldest entries until at most size is left.
func (d *Decoder) evict(size int) {
	for d.size > size {
		i := d.next - d.count
		if i < 0 {
			i += len(d.ring)
		}
		d.size -= len(d.ring[i].name) + len(d.ring[i].value) + overhead
		d.ring[i] = entry{}
		d.count--
	}
}
