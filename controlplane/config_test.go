package controlplane

import (
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/apis/workload"
)

// What tunnels prefer comes from the flag to the compiler, and a typo is refused by
// the flag's name.
func TestTransport(t *testing.T) {
	valid := Config{Source: SourceFiles, Manifests: []string{"m"}, StateDir: "s", NodeCredentials: "n"}
	for value, want := range map[string]workload.Transport_Preference{
		"": workload.Transport_AUTO, "auto": workload.Transport_AUTO, "h2": workload.Transport_H2, "h3": workload.Transport_H3,
	} {
		cfg := valid
		cfg.Transport = value
		cfg = cfg.withDefaults()
		if err := cfg.validate(); err != nil {
			t.Errorf("%q: %v", value, err)
		}
		if got := cfg.compileOptions().Transport; got != want {
			t.Errorf("%q: the compiler is told %v, want %v", value, got, want)
		}
	}
	valid.Transport = "h4"
	if err := valid.withDefaults().validate(); err == nil || !strings.Contains(err.Error(), `--tunnel-transport "h4"`) {
		t.Errorf("h4: %v", err)
	}
}
