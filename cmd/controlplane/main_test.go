package main

import (
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	env := map[string]string{"AMBIT_STATE_DIR": "/from/env", "AMBIT_CERT_TTL": "1h", "AMBIT_TRUST_DOMAIN": "ignored"}
	cfg, err := parse([]string{
		"--manifests=a", "--manifests=b", "--trust-domain=corp.example", "--serving-name=cp.example", "--serving-name=10.0.0.1",
	}, func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(cfg.Manifests, ",") != "a,b" || strings.Join(cfg.ServingNames, ",") != "cp.example,10.0.0.1" {
		t.Errorf("lists %v %v", cfg.Manifests, cfg.ServingNames)
	}
	if cfg.StateDir != "/from/env" || cfg.CertTTL != time.Hour || cfg.TrustDomain != "corp.example" || cfg.ClusterID != "Kubernetes" {
		t.Errorf("config %+v", cfg)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		env  map[string]string
		want string
	}{
		"unknown flag": {[]string{"--manifest=a"}, nil, "manifest"},
		"argument":     {[]string{"start"}, nil, "start"},
		"log level":    {[]string{"--log-level=loud"}, nil, "loud"},
		"environment":  {nil, map[string]string{"AMBIT_CERT_TTL": "soon"}, "AMBIT_CERT_TTL"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(tc.args, func(k string) string { return tc.env[k] })
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error %v; want one that names %q", err, tc.want)
			}
		})
	}
}
