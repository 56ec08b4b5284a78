package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// compiler builds programs into a folder.
type compiler struct {
	root, out string
	ldflags   string
}

// build compiles a program for a platform and gives its file. Neither paths of this machine nor the link's own
// identifier go into it.
func (c compiler) build(ctx context.Context, p Program, at string, on v1.Platform) (string, error) {
	file := filepath.Join(c.out, on.OS+"-"+on.Architecture, filepath.Base(at))
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs="+stamped(ctx, c.root), "-ldflags=-s -w -buildid= "+c.ldflags, "-o", file, p.Package)
	cmd.Dir = filepath.Join(c.root, p.Module)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+on.OS, "GOARCH="+on.Architecture, "GOWORK=off")
	if on.Architecture == "amd64" {
		cmd.Env = append(cmd.Env, "GOAMD64=v1")
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("go build %s for %s in %s: %w\n%s", p.Package, on, cmd.Dir, err, stderr.String())
	}
	return file, nil
}

// stamped says whether programs can carry the commit that they were built from.
func stamped(ctx context.Context, root string) string {
	cmd := exec.CommandContext(ctx, "git", "-C", root, "rev-parse", "HEAD")
	if cmd.Run() != nil {
		return "false"
	}
	return "auto"
}
