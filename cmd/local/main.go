// Command local is the part of ambit that local meshes consist of: their keepers,
// their first processes, and what joins namespaces for containers.
package main

import (
	"fmt"
	"os"

	"github.com/ambit-mesh/ambit/internal/local"
)

func main() {
	code, inside := local.Inside()
	if !inside {
		fmt.Fprintln(os.Stderr, "ambit-local is run by ambit local, not by hand")
		os.Exit(2)
	}
	os.Exit(code)
}
