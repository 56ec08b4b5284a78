package guard_test

import (
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/waypoint/internal/guard"
)

func TestField(t *testing.T) {
	for _, c := range []struct {
		name, value string
		want        guard.Fault
	}{
		{"X-User", "alice", guard.Fine},
		{"x-user", "  padded\t", guard.Fine},
		{"x-user", "", guard.Fine},
		{"x-user", "ä", guard.Fine}, // obs-text
		{"x-user", "a\r\nset-cookie: b", guard.BadValue},
		{"x-user", "a\x00b", guard.BadValue},
		{"x-user", "a\nb", guard.BadValue},
		{"x-user\r\nx", "a", guard.BadName},
		{"x user", "a", guard.BadName},
		{"x-user:", "a", guard.BadName},
		{"", "a", guard.BadName},
		{"ü", "a", guard.BadName},
		{":path", "/admin", guard.Pseudo},
		{":", "", guard.Pseudo},
		{"Host", "evil", guard.Pseudo},
		{"Content-Length", "0", guard.Connection},
		{"Transfer-Encoding", "chunked", guard.Connection},
		{"CONNECTION", "x-user", guard.Connection},
		{"te", "trailers", guard.Connection},
		{"upgrade", "h2c", guard.Connection},
		{"x-user", strings.Repeat("a", guard.MaxField+1), guard.TooLarge},
		{strings.Repeat("a", guard.MaxField+1), "", guard.TooLarge},
	} {
		f, fault := guard.Field(c.name, c.value)
		if fault != c.want {
			t.Errorf("%.40q: %.40q: fault %q, want %q", c.name, c.value, fault, c.want)
		}
		if fault == guard.Fine && (f.Name != strings.ToLower(c.name) || f.Value != strings.Trim(c.value, " \t")) {
			t.Errorf("%q: %q came out as %q: %q", c.name, c.value, f.Name, f.Value)
		}
	}
}

func FuzzField(f *testing.F) {
	f.Add("x-a", "b")
	f.Add("x-a\r\n", "b\r\n")
	f.Add(":path", "/")
	f.Fuzz(func(t *testing.T, name, value string) {
		line, fault := guard.Field(name, value)
		if fault != guard.Fine {
			return
		}
		if line.Name == "" || strings.ContainsAny(line.Name, "\r\n\x00: ") || strings.ContainsAny(line.Value, "\r\n\x00") {
			t.Fatalf("let in %q: %q", line.Name, line.Value)
		}
	})
}
