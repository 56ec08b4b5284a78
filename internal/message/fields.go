package message

import "strings"

// Field is one field line. Name is in lower case.
type Field struct{ Name, Value string }

// Fields are field lines in the order in which they came. Names are in lower case
// and compared as they are.
type Fields []Field

// Get gives the value of the first field line with that name, "" if there is none.
func (f Fields) Get(name string) string {
	for i := range f {
		if f[i].Name == name {
			return f[i].Value
		}
	}
	return ""
}

// Has reports whether there is a field line with that name.
func (f Fields) Has(name string) bool {
	for i := range f {
		if f[i].Name == name {
			return true
		}
	}
	return false
}

// Joined gives the values of all field lines with that name as one list, RFC 9110
// section 5.3, and whether there are any.
func (f Fields) Joined(name string) (string, bool) {
	var first string
	n := 0
	var b strings.Builder
	for i := range f {
		if f[i].Name != name {
			continue
		}
		switch n++; n {
		case 1:
			first = f[i].Value
			continue
		case 2:
			b.WriteString(first)
		}
		b.WriteString(",")
		b.WriteString(f[i].Value)
	}
	if n < 2 {
		return first, n == 1
	}
	return b.String(), true
}

// Add appends a field line.
func (f *Fields) Add(name, value string) { *f = append(*f, Field{name, value}) }

// Set puts one field line in the place of all with that name.
func (f *Fields) Set(name, value string) {
	out, done := (*f)[:0], false
	for _, l := range *f {
		switch {
		case l.Name != name:
			out = append(out, l)
		case !done:
			done = true
			out = append(out, Field{name, value})
		}
	}
	if !done {
		out = append(out, Field{name, value})
	}
	clear((*f)[min(len(out), len(*f)):])
	*f = out
}

// Del removes all field lines with that name.
func (f *Fields) Del(name string) {
	if !f.Has(name) {
		return
	}
	out := (*f)[:0]
	for _, l := range *f {
		if l.Name != name {
			out = append(out, l)
		}
	}
	clear((*f)[len(out):])
	*f = out
}

// Clone gives a copy with room for extra more.
func (f Fields) Clone(extra int) Fields {
	return append(make(Fields, 0, len(f)+extra), f...)
}
