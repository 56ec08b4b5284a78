package trace

import (
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestValidate(t *testing.T) {
	for endpoint, want := range map[string]string{
		"":                         "",
		"collector:4317":           "",
		"http://collector:4317":    "",
		"https://[::1]:4317/":      "",
		"collector":                "want host:port",
		"ftp://collector:1":        "want host:port, http",
		"http://collector:1/v1":    "want host:port, http",
		"http://collector":         "want host:port",
		":4317":                    "want host:port",
		"http://user@collector:99": "want host:port, http",
	} {
		err := Config{Endpoint: endpoint}.Validate()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", endpoint, err, want)
		}
	}
}
