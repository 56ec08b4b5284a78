package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	if name != "server" && name != "client" && len(args) > 0 {
		name, args = args[0], args[1:]
	}
	var err error
	switch name {
	case "server":
		err = serve(ctx, args, os.Stdout)
	case "client":
		err = call(ctx, args, os.Stdin, os.Stdout)
	default:
		err = fmt.Errorf("%q is neither server nor client", name)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}
