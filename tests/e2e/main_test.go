package e2e

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/ambit-mesh/ambit/tests/cluster/clustertest"
)

func TestMain(m *testing.M) {
	if clustertest.Helper() {
		return
	}
	if os.Getenv(clustertest.Program) == "" {
		os.Exit(m.Run())
	}
	goleak.VerifyTestMain(m)
}
