package command

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/controlplane"
)

// clusters is a program of clusters whose API servers cannot be reached.
var clusters = Program{Name: "controlplane", Kubernetes: func(controlplane.Config) (controlplane.Platform, error) {
	return nil, io.ErrUnexpectedEOF
}}

var filesOnly = Program{Name: "local-controlplane"}

func TestParse(t *testing.T) {
	env := map[string]string{"AMBIT_STATE_DIR": "/from/env", "AMBIT_CERT_TTL": "1h", "AMBIT_TRUST_DOMAIN": "ignored"}
	for _, p := range []Program{clusters, filesOnly} {
		cfg, err := p.parse([]string{
			"--manifests=a", "--manifests=b", "--trust-domain=corp.example", "--serving-name=cp.example", "--serving-name=10.0.0.1",
		}, func(k string) string { return env[k] }, io.Discard)
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
			_, err := clusters.parse(tc.args, func(k string) string { return tc.env[k] }, io.Discard)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error %v; want one that names %q", err, tc.want)
			}
		})
	}
}

// Only a program of clusters has flags for them, and one that reads files names the
// other.
func TestClusters(t *testing.T) {
	for name, tc := range map[string]struct {
		program Program
		args    string
		want    string
	}{
		"clusters":               {clusters, "--source=kubernetes --webhook-address=:0 --no-node-taints", "controlplane: unexpected EOF\n"},
		"clusters, files":        {clusters, "--source=files --kubeconfig=k", "controlplane: --kubeconfig is for --source=kubernetes: leave it out\n"},
		"files only":             {filesOnly, "--source=kubernetes", "local-controlplane: --source=kubernetes: this program reads files only: run ambit-controlplane\n"},
		"files only, kubeconfig": {filesOnly, "--kubeconfig=k", "local-controlplane: unknown flag: --kubeconfig\n"},
		"files only, waypoints":  {filesOnly, "--waypoint-image=i", "local-controlplane: unknown flag: --waypoint-image\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			code := tc.program.Main(strings.Fields(tc.args), func(string) string { return "" }, &stderr)
			if code != 2 || !strings.HasSuffix(stderr.String(), tc.want) {
				t.Errorf("code %d, want 2; said\n%s\nwant at its end\n%s", code, stderr.String(), tc.want)
			}
		})
	}
}
