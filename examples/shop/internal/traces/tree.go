package traces

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Tree shows the spans of one trace below each other, with their services.
func Tree(spans []Span) string {
	if len(spans) == 0 {
		return ""
	}
	spans = slices.Clone(spans)
	slices.SortStableFunc(spans, func(a, b Span) int { return a.Start.Compare(b.Start) })
	t := tree{children: make(map[string][]Span)}
	ids := make(map[string]bool)
	for _, s := range spans {
		ids[s.ID] = true
	}
	last := spans[0].End
	var roots []Span
	for _, s := range spans {
		if s.End.After(last) {
			last = s.End
		}
		// A parent that is not here belongs to a program that sends no spans.
		if s.Parent == "" || !ids[s.Parent] {
			roots = append(roots, s)
			continue
		}
		t.children[s.Parent] = append(t.children[s.Parent], s)
	}
	fmt.Fprintf(&t.b, "trace %s, %s, %d spans\n", spans[0].Trace, round(last.Sub(spans[0].Start)), len(spans))
	t.draw(roots, "")
	return t.b.String()
}

type tree struct {
	b        strings.Builder
	children map[string][]Span // by the parent's id
}

func (t *tree) draw(spans []Span, indent string) {
	for i, s := range spans {
		branch, below := "├─ ", "│  "
		if i == len(spans)-1 {
			branch, below = "└─ ", "   "
		}
		fmt.Fprintf(&t.b, "%s%s%s\n", indent, branch, s)
		children := t.children[s.ID]
		// Once, should ids make a circle.
		delete(t.children, s.ID)
		t.draw(children, indent+below)
	}
}

// shown are the attributes that say what happened, and how they are called.
var shown = []struct{ key, text string }{
	{"http.response.status_code", ""},
	{"rpc.grpc.status_code", "grpc "},
	{"ambit.route", ""},
	{"ambit.rule", "rule "},
	{"http.request.resend_count", "try again "},
	{"ambit.retries", "retries "},
	{"ambit.policy", "policy "},
	{"error.type", "error "},
}

// String is the line of a span.
func (s Span) String() string {
	parts := []string{s.Service, s.title(), round(s.End.Sub(s.Start)).String()}
	for _, a := range shown {
		if v := s.Attributes[a.key]; v != "" {
			parts = append(parts, a.text+v)
		}
	}
	if len(s.Events) > 0 {
		parts = append(parts, "("+strings.Join(s.Events, ", ")+")")
	}
	if s.Failed {
		parts = append(parts, "FAILED")
	}
	return strings.Join(parts, "  ")
}

// title says what was asked, by whom and of whom, as far as the span tells.
func (s Span) title() string {
	text := s.Name
	if path := s.Attributes["url.path"]; path != "" {
		text = s.Attributes["http.request.method"] + " " + path
	}
	if from := s.Attributes["ambit.source.workload"]; from != "" {
		text += "  " + from
	}
	if to := cmp.Or(s.Attributes["ambit.destination.workload"], s.Attributes["ambit.backend"]); to != "" {
		text += " → " + to
	}
	return text
}

func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(10 * time.Millisecond)
}
