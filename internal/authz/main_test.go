package authz_test

import (
	"flag"
	"os"
	"testing"
)

// TestMain makes the properties try more cases than they would by themselves;
// -rapid.checks says otherwise.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "3000"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
