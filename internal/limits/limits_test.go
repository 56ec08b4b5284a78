package limits_test

import (
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/limits"
)

func named(t *testing.T, name string) limits.Limit {
	t.Helper()
	for _, l := range limits.All() {
		if l.Name == name {
			return l
		}
	}
	t.Fatalf("there is no limit %s", name)
	return limits.Limit{}
}

func TestCheck(t *testing.T) {
	for _, tc := range []struct{ name, value, want string }{
		{"max-streams", "1", ""},
		{"max-streams", "256", ""},
		{"max-streams", "257", "use 1 to 256"},
		{"max-streams", "0", "use 1 to 256"},
		{"max-streams", "-1", "use 1 to 256"},
		{"max-streams", "many", "not a whole number"},
		{"max-streams", "1.5", "not a whole number"},
		{"idle-timeout", "90s", ""},
		{"idle-timeout", "24h", ""},
		{"idle-timeout", "1ms", "use 1s to 24h0m0s"},
		{"idle-timeout", "25h", "use 1s to 24h0m0s"},
		{"idle-timeout", "90", "not a duration: write for example 1s"},
		{"idle-timeout", "", "not a duration"},
	} {
		err := named(t, tc.name).Check(tc.value)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s %q: %v, want %q", tc.name, tc.value, err, tc.want)
		}
	}
}

// What is accepted parses, and lies within the bounds.
func FuzzCheck(f *testing.F) {
	f.Add("90s")
	f.Add("256")
	f.Add("-1h")
	f.Add("9223372036854775808")
	f.Fuzz(func(t *testing.T, value string) {
		for _, l := range limits.All() {
			n, err := l.Parse(value)
			if inside := err == nil && n >= l.Min && n <= l.Max; inside != (l.Check(value) == nil) {
				t.Errorf("%s %q: %d, %v, and %v", l.Name, value, n, err, l.Check(value))
			}
		}
	})
}
