package extauthz

import (
	"net/url"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/ambit-mesh/ambit/internal/message"
	"github.com/ambit-mesh/ambit/waypoint/internal/guard"
)

type op uint8

const (
	set op = iota
	add
	addIfAbsent
	setIfPresent
	remove
)

// edit is a change of a field.
type edit struct {
	op    op
	field message.Field
}

func apply(edits []edit, f *message.Fields) {
	for _, e := range edits {
		name, value := e.field.Name, e.field.Value
		switch e.op {
		case set:
			f.Set(name, value)
		case add:
			f.Add(name, value)
		case addIfAbsent:
			if !f.Has(name) {
				f.Add(name, value)
			}
		case setIfPresent:
			if f.Has(name) {
				f.Set(name, value)
			}
		case remove:
			f.Del(name)
		}
	}
}

// edits reads the fields that a service wants. append defaults to false in the
// messages of this protocol, and append_action is looked at where append does not
// decide, as Envoy does.
func edits(in []*corepb.HeaderValueOption, ignored func(guard.Fault)) []edit {
	var out []edit
	for i, h := range in {
		if i == guard.MaxFields {
			ignored(guard.TooLarge)
			break
		}
		value := h.GetHeader().GetValue()
		if raw := h.GetHeader().GetRawValue(); len(raw) > 0 {
			value = string(raw)
		}
		f, fault := guard.Field(h.GetHeader().GetKey(), value)
		if fault != guard.Fine {
			ignored(fault)
			continue
		}
		out = append(out, edit{action(h), f})
	}
	return out
}

func action(h *corepb.HeaderValueOption) op {
	switch h.GetAppendAction() {
	case corepb.HeaderValueOption_ADD_IF_ABSENT:
		return addIfAbsent
	case corepb.HeaderValueOption_OVERWRITE_IF_EXISTS:
		return setIfPresent
	case corepb.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
		return set
	}
	// The field is deprecated, and the only way to say this.
	if h.GetAppend().GetValue() { //nolint:staticcheck // see above
		return add
	}
	return set
}

// removals reads the names of fields that a service does not want to go on.
func removals(names []string, ignored func(guard.Fault)) []edit {
	var out []edit
	for i, name := range names {
		if i == guard.MaxFields {
			ignored(guard.TooLarge)
			break
		}
		n, fault := guard.Name(name)
		if fault != guard.Fine {
			ignored(fault)
			continue
		}
		out = append(out, edit{remove, message.Field{Name: n}})
	}
	return out
}

// queryEdit is a change of the query: parameters that are removed, then such that
// take the place of others of the same name.
type queryEdit struct {
	remove []string
	set    [][2]string
}

// apply gives the target with its query changed. What is not changed stays byte
// for byte.
func (q *queryEdit) apply(target string) string {
	if len(q.remove)+len(q.set) == 0 || !strings.HasPrefix(target, "/") {
		return target
	}
	path, query, _ := strings.Cut(target, "?")
	var kept []string
	for pair := range strings.SplitSeq(query, "&") {
		if pair != "" && !q.names(pair) {
			kept = append(kept, pair)
		}
	}
	for _, p := range q.set {
		kept = append(kept, url.QueryEscape(p[0])+"="+url.QueryEscape(p[1]))
	}
	if len(kept) == 0 {
		return path
	}
	return path + "?" + strings.Join(kept, "&")
}

// names reports whether the edit is about the parameter of a pair.
func (q *queryEdit) names(pair string) bool {
	key, _, _ := strings.Cut(pair, "=")
	if decoded, err := url.QueryUnescape(key); err == nil {
		key = decoded
	}
	for _, n := range q.remove {
		if n == key {
			return true
		}
	}
	for _, p := range q.set {
		if p[0] == key {
			return true
		}
	}
	return false
}
