// Command ambit installs meshes into clusters, runs local ones, and looks into both.
package main

import (
	"os"

	"github.com/ambit-mesh/ambit/internal/cli"
	"github.com/ambit-mesh/ambit/internal/cli/cluster"
	"github.com/ambit-mesh/ambit/internal/local"
)

func main() {
	if code, inside := local.Inside(); inside {
		os.Exit(code)
	}
	os.Exit(cli.Main(os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Program: os.Args[0]}, cluster.Part()))
}
