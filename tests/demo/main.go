package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/ambit-mesh/ambit/internal/netns"
	"github.com/ambit-mesh/ambit/internal/testkit/sniff"
	"github.com/ambit-mesh/ambit/tests/demo/internal/netstate"
)

func main() {
	err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "netstate":
			return runNetstate(args[1:])
		case "source":
			return runSource()
		case "fetch":
			return runFetch(args[1])
		case "sniff":
			return runSniff(args[1:])
		}
	}
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	bin := flags.String("bin-dir", "bin", "directory of the ambit-* and shop programs")
	example := flags.String("example", "examples/shop", "directory of the example")
	keep := flags.Bool("keep", os.Getenv("KEEP") == "1", "leave the mesh running; KEEP=1 in the environment does the same")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	d, err := newDemo(*bin, *example, *keep, os.Stdout)
	if err != nil {
		return err
	}
	return d.run(ctx)
}

// runNetstate writes down network namespaces, by their paths.
func runNetstate(paths []string) error {
	all := make(map[string]string)
	for _, p := range paths {
		ns, err := netns.Open(p)
		if err != nil {
			return err
		}
		err = ns.Do(func() (err error) {
			all[p], err = netstate.Read()
			return err
		})
		if err = errors.Join(err, ns.Close()); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(all)
}

// ignored are addresses of the sandbox itself: the control plane and the name
// server are not part of what pods say to each other.
var ignored = [...]string{"172.18.0.1", "fd00:18::1", "10.96.0.10", "fd00:10:96::a"}

func runSniff(args []string) error {
	flags := flag.NewFlagSet("sniff", flag.ContinueOnError)
	link := flags.String("interface", "br0", "link to capture on")
	needles := flags.String("needles", "", "known plaintext, separated by |")
	if err := flags.Parse(args); err != nil {
		return err
	}
	cfg := sniff.Config{Interface: *link, Needles: strings.Split(*needles, "|"), MeshPort: 15008}
	for _, a := range ignored {
		cfg.Ignore = append(cfg.Ignore, netip.MustParseAddr(a))
	}
	return sniff.Run(cfg, os.Stdin, os.Stdout)
}
