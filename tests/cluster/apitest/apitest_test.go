package apitest_test

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/ambit-mesh/ambit/tests/cluster/apitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const configMap = `{apiVersion: v1, kind: ConfigMap, metadata: {name: kept, namespace: default}, data: {a: b}}`

// What was written survives the API server, and rights are those of who asks.
func TestServer(t *testing.T) {
	s := apitest.Start(t)
	if _, err := s.Kubectl(configMap, "apply", "--server-side", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	s.Pause()
	if out, err := s.Kubectl("", "get", "cm", "kept", "--request-timeout=2s"); err == nil {
		t.Fatalf("a paused API server answered: %s", out)
	}
	s.Resume()
	if out, err := s.Kubectl("", "get", "cm", "kept", "-o", "jsonpath={.data.a}"); err != nil || out != "b" {
		t.Fatalf("%q, %v", out, err)
	}
	_, file := s.As("somebody", "nobodies")
	if out, err := s.Kubectl("", "--kubeconfig", file, "get", "secrets"); err == nil || !strings.Contains(out, "forbidden") {
		t.Fatalf("somebody may read secrets: %s %v", out, err)
	}
}
