package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// config is what the command line says.
type config struct {
	spec, root, out, registry, tag, ldflags string
	platforms                               []v1.Platform
	layout, push                            bool
	only                                    []string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg, err := parse(os.Args[1:])
	if err == nil {
		err = run(ctx, cfg)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func parse(args []string) (config, error) {
	var c config
	f := flag.NewFlagSet("images", flag.ContinueOnError)
	platforms := f.String("platforms", "linux/amd64,linux/arm64", "platforms to build for")
	f.StringVar(&c.spec, "f", "images.yaml", "file that lists the images")
	f.StringVar(&c.root, "root", ".", "folder that the paths in that file are relative to")
	f.StringVar(&c.out, "o", "bin/images", "folder to write to")
	f.StringVar(&c.registry, "registry", "ghcr.io/ambit-mesh", "what is put before names that have no registry")
	f.StringVar(&c.tag, "tag", "dev", "tag of names that have none")
	f.StringVar(&c.ldflags, "ldflags", "", "further flags for the linker")
	f.BoolVar(&c.layout, "layout", true, "write an OCI layout")
	f.BoolVar(&c.push, "push", false, "push to the registry")
	if err := f.Parse(args); err != nil {
		return config{}, err
	}
	for s := range strings.SplitSeq(*platforms, ",") {
		p, err := v1.ParsePlatform(s)
		if err != nil || p.OS == "" || p.Architecture == "" {
			return config{}, fmt.Errorf("--platforms: %q is not of the form linux/amd64", s)
		}
		c.platforms = append(c.platforms, *p)
	}
	c.only = f.Args()
	return c, nil
}

func run(ctx context.Context, cfg config) error {
	spec, err := readSpec(cfg.spec)
	if err != nil {
		return err
	}
	if err := known(spec, cfg.only); err != nil {
		return fmt.Errorf("%s: %w", cfg.spec, err)
	}
	if err := os.MkdirAll(cfg.out, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "ambit-images-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	c := compiler{root: cfg.root, out: tmp, ldflags: cfg.ldflags}
	for _, m := range spec.Images {
		if len(cfg.only) > 0 && !slices.Contains(cfg.only, m.short()) {
			continue
		}
		if err := make1(ctx, cfg, c, m); err != nil {
			return err
		}
	}
	return nil
}

func known(spec *Spec, names []string) error {
	for _, n := range names {
		if !slices.ContainsFunc(spec.Images, func(m Image) bool { return m.short() == n }) {
			return fmt.Errorf("no image %q in it", n)
		}
	}
	return nil
}

// make1 builds one image and writes it to wherever was asked for.
func make1(ctx context.Context, cfg config, c compiler, m Image) error {
	m.present(cfg.root)
	tags, err := m.tags(cfg.registry, cfg.tag)
	if err != nil {
		return err
	}
	c.out = filepath.Join(c.out, m.short())
	var all []built
	for _, p := range cfg.platforms {
		b, err := assemble(ctx, c, m, p)
		if err != nil {
			return err
		}
		all = append(all, b)
	}
	idx := index(all)
	digest, err := idx.Digest()
	if err != nil {
		return err
	}
	if err := writeArchives(cfg.out, m.short(), tags, all); err != nil {
		return err
	}
	if cfg.layout {
		if err := writeLayout(filepath.Join(cfg.out, "oci"), tags, idx); err != nil {
			return err
		}
	}
	if cfg.push {
		if err := push(ctx, tags, idx); err != nil {
			return err
		}
	}
	for _, t := range tags {
		fmt.Printf("%s@%s\n", t, digest)
	}
	return nil
}
