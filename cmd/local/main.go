// Command local is ambit local without what ambit has for clusters, and what local
// meshes consist of: their keepers, their first processes, and what joins namespaces
// for containers.
package main

import (
	"os"

	"github.com/ambit-mesh/ambit/internal/cli"
	"github.com/ambit-mesh/ambit/internal/local"
)

func main() {
	if code, inside := local.Inside(); inside {
		os.Exit(code)
	}
	os.Exit(cli.LocalMain(os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Program: os.Args[0]}))
}
