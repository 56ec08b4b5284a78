// Command bench measures what Ambit costs beside what it is compared with, over
// real network namespaces, in one run. See README.md for the method.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/ambit-mesh/ambit/tests/bench/l7"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	commands := map[string]func(context.Context, []string) error{
		"run":      run,     // the whole benchmark
		"serve":    serve,   // in the server's pod
		"relay":    relay,   // in both pods: what Ambit is compared with
		"load":     load,    // in the client's pod
		"get":      get,     // in a node
		"link":     link,    // between the nodes
		"pin":      pin,     // in nodes and pods
		"hold":     hold,    // keeps a pod alive
		"waypoint": l7.Main, // beside a proxy that is measured
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: bench run | serve | relay | load | link | pin | hold")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](ctx, os.Args[2:]); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// hold waits to be told to end.
func hold(ctx context.Context, _ []string) error {
	<-ctx.Done()
	return nil
}
