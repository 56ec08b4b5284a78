package main

import (
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	env := map[string]string{"AMBIT_NODE": "from-env", "AMBIT_XDS_ADDRESS": "ignored:1", "AMBIT_DRAIN_TIMEOUT": "90s"}
	cfg, err := parse([]string{
		"--xds-address=10.0.0.1:15012", "--zds-socket=/z", "--cni-socket=/c", "--state-dir=/s", "--token-file=/t", "--xds-root=/r",
	}, func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Node != "from-env" || cfg.XDS.Address != "10.0.0.1:15012" || cfg.DrainTimeout != 90*time.Second {
		t.Errorf("config %+v", cfg)
	}
	if cfg.XDS.ClusterID != "Kubernetes" || cfg.AdminAddress != "127.0.0.1:15010" || cfg.MetricsAddress != ":15024" || cfg.ReadyAddress != ":15022" {
		t.Errorf("defaults %+v", cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		env  map[string]string
		want string
	}{
		"unknown flag": {[]string{"--nodes=a"}, nil, "nodes"},
		"argument":     {[]string{"start"}, nil, "start"},
		"log level":    {[]string{"--log-level=loud"}, nil, "loud"},
		"environment":  {nil, map[string]string{"AMBIT_START_TIMEOUT": "soon"}, "AMBIT_START_TIMEOUT"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(tc.args, func(k string) string { return tc.env[k] })
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error %v; want one that names %q", err, tc.want)
			}
		})
	}
}
