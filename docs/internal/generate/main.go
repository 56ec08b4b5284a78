// Command generate writes docs/reference from the source, or checks that it is up
// to date.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/ambit-mesh/ambit/docs/internal/reference"
)

func main() {
	out := flag.String("o", "", "folder to write to")
	check := flag.String("check", "", "folder to compare with instead")
	flag.Parse()
	if err := run(*out, *check); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(out, check string) error {
	if (out == "") == (check == "") {
		return errors.New("want -o DIR or -check DIR")
	}
	programs, err := build()
	if err != nil {
		return err
	}
	defer os.RemoveAll(programs)
	pages, err := reference.Pages(".", programs)
	if err != nil {
		return err
	}
	for i := range pages {
		pages[i].Name = filepath.Join(out+check, pages[i].Name)
	}
	of, err := reference.Chart(".")
	if err != nil {
		return err
	}
	var stale []error
	for _, p := range append(pages, of...) {
		path := p.Name
		if out != "" {
			if err := os.WriteFile(path, []byte(p.Text), 0o644); err != nil {
				return err
			}
			continue
		}
		if have, err := os.ReadFile(path); err != nil || string(have) != p.Text {
			stale = append(stale, fmt.Errorf("%s is stale: run make generate", path))
		}
	}
	return errors.Join(stale...)
}

// build makes the programs, whose help texts are asked for, in a folder that the
// caller removes.
func build() (string, error) {
	dir, err := os.MkdirTemp("", "ambit-generate-")
	if err != nil {
		return "", err
	}
	for name, pkg := range map[string]string{
		"ambit": "ambit", "ambit-controlplane": "controlplane", "ambit-ztunnel": "ztunnel", "ambit-waypoint": "waypoint", "ambit-nodeagent": "nodeagent",
	} {
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", filepath.Join(dir, name), "./cmd/"+pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return "", errors.Join(fmt.Errorf("build %s: %w", name, err), os.RemoveAll(dir))
		}
	}
	return dir, nil
}
