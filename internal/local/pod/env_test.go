package pod

import "testing"

func TestExpand(t *testing.T) {
	lookup := func(name string) (string, bool) {
		v, ok := map[string]string{"A": "1", "EMPTY": "", "NESTED": "$(A)"}[name]
		return v, ok
	}
	for in, want := range map[string]string{
		"":             "",
		"plain":        "plain",
		"$(A)":         "1",
		"x$(A)y$(A)":   "x1y1",
		"$(EMPTY)":     "",
		"$(NONE)":      "$(NONE)",
		"$$(A)":        "$(A)",
		"$$":           "$",
		"$":            "$",
		"$A":           "$A",
		"${A}":         "${A}",
		"$(A":          "$(A",
		"$()":          "$()",
		"$(NESTED)":    "$(A)",
		"5$ and $(A)$": "5$ and 1$",
	} {
		if got := expand(in, lookup); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	for _, s := range []string{"", "$", "$(", "$()", "$(A)", "$$(A)", "a$(B)$"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		keep := func(name string) (string, bool) { return "$(" + name + ")", true }
		if got := expand(s, keep); len(got) > len(s) {
			t.Errorf("%q grew to %q", s, got)
		}
	})
}
