package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/limits"
)

// Each bound that a Gateway may set is a flag, and all that is accepted there can be
// started with.
func TestLimitsAreFlags(t *testing.T) {
	flags := []string{"--gateway=shop/wp", "--pod=wp-1", "--service-account=wp", "--xds-address=127.0.0.1:15012", "--access-log=off", "--xds-root=/root.pem", "--token-file=/token"}
	noEnv := func(string) string { return "" }
	for _, l := range limits.All() {
		for _, n := range []int64{l.Min, l.Max} {
			value := fmt.Sprint(n)
			if l.Duration {
				value = time.Duration(n).String()
			}
			args := append(flags[:len(flags):len(flags)], "--"+l.Name+"="+value)
			if l.Name == limits.MaxTargetBytes { // which is a part of the head
				args = append(args, fmt.Sprintf("--%s=%d", limits.MaxHeaderBytes, max(n, limits.DefaultHeaderBytes)))
			}
			cfg, err := parse(args, noEnv)
			if err == nil {
				err = cfg.Validate()
			}
			if err != nil {
				t.Errorf("%s=%s: %v", l.Name, value, err)
			}
			if before, _ := parse(flags, noEnv); fmt.Sprint(before.HTTP1, before.HTTP2, before.Drain, before.MaxHandshakes, before.MaxUDPSessions) ==
				fmt.Sprint(cfg.HTTP1, cfg.HTTP2, cfg.Drain, cfg.MaxHandshakes, cfg.MaxUDPSessions) {
				t.Errorf("%s=%s changes nothing", l.Name, value)
			}
		}
	}
}
