package http2_test

import (
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/http2"
)

func TestConfigNamesWhatIsWrong(t *testing.T) {
	for _, tc := range []struct {
		cfg  http2.Config
		want string // "" for nothing
	}{
		{http2.Config{}, ""},
		{http2.Config{MaxStreams: 1000, ConnWindow: 64 << 20}, ""},
		{http2.Config{MaxStreams: -1}, "max streams -1"},
		{http2.Config{MaxStreams: 1000}, "no room for 1000 streams"},
		{http2.Config{MaxHeaderBytes: 10}, "max header bytes 10"},
		{http2.Config{MaxFields: 3}, "max fields 3"},
		{http2.Config{MaxFrame: 1000}, "max frame 1000"},
		{http2.Config{StreamWindow: 1000}, "stream window 1000"},
		{http2.Config{StreamWindow: 2 << 20}, "stream window 2097152"},
		{http2.Config{ConnWindow: 1000}, "connection window 1000"},
		{http2.Config{IdleTimeout: -time.Second}, "negative"},
	} {
		err := tc.cfg.Validate()
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v, want %q", tc.cfg, err, tc.want)
		}
	}
}
