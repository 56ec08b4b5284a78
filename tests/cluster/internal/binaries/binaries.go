// Package binaries builds the programs of Kubernetes from their modules, once for each version of them, and finds them.
package binaries

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Names are the programs that the one binary is.
func Names() []string {
	return []string{"coredns", "etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"}
}

// Root is the root of the project's tree that a folder is in.
func Root(dir string) (string, error) {
	for d := dir; ; d = filepath.Dir(d) {
		b, err := os.ReadFile(filepath.Join(d, "go.mod"))
		if err == nil && bytes.HasPrefix(b, []byte("module github.com/ambit-mesh/ambit\n")) {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("%s is not in the project's tree: run it from there", dir)
		}
	}
}

// Cache is where what was built is kept.
func Cache(root string) string { return filepath.Join(root, ".cache", "cluster") }

// Folder has a symlink for each program. It is there only after Build.
func Folder(root string) string { return filepath.Join(Cache(root), "bin") }

// ErrNotBuilt says that Build has to be called, which takes minutes.
var ErrNotBuilt = errors.New("the programs of Kubernetes are not built: run make cluster-build, which takes several minutes the first time")

// Find gives the folder of programs if they are there and made from what the tree has now.
func Find(root string) (string, error) {
	want, err := version(root)
	if err != nil {
		return "", err
	}
	have, err := os.ReadFile(stamp(root))
	if err != nil || string(have) != want {
		return "", ErrNotBuilt
	}
	return Folder(root), nil
}

// Build builds the programs if they are not there.
func Build(ctx context.Context, root string, log io.Writer) (string, error) {
	if dir, err := Find(root); err == nil {
		return dir, nil
	}
	want, err := version(root)
	if err != nil {
		return "", err
	}
	dir := Folder(root)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	fmt.Fprintln(log, "building Kubernetes, etcd and CoreDNS: several minutes the first time")
	if err := compile(ctx, module(root), filepath.Join(dir, "kube"), log); err != nil {
		return "", err
	}
	for _, n := range Names() {
		link := filepath.Join(dir, n)
		if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		if err := os.Symlink("kube", link); err != nil {
			return "", err
		}
	}
	return dir, os.WriteFile(stamp(root), []byte(want), 0o644)
}

func module(root string) string { return filepath.Join(root, "tests", "cluster", "kube") }

func stamp(root string) string { return filepath.Join(Folder(root), "kube.sum") }

// version is a digest of everything that decides what is built.
func version(root string) (string, error) {
	files, err := filepath.Glob(filepath.Join(module(root), "*"))
	if err != nil {
		return "", err
	}
	h := sha256.New()
	slices.Sort(files)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", filepath.Base(f), len(b), b)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// compile links the version of Kubernetes in: without it the programs take themselves for an unknown one and gate
// features accordingly.
func compile(ctx context.Context, dir, out string, log io.Writer) error {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes")
	cmd.Dir, cmd.Stderr = dir, log
	v, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("version of Kubernetes in %s: %w", dir, err)
	}
	full := strings.TrimSpace(string(v))
	parts := strings.Split(strings.TrimPrefix(full, "v"), ".")
	if len(parts) < 3 {
		return fmt.Errorf("version of Kubernetes: %q is not of the form v1.2.3", full)
	}
	const p = "-X k8s.io/component-base/version."
	flags := fmt.Sprintf("-s -w %sgitVersion=%s %sgitMajor=%s %sgitMinor=%s %sgitTreeState=clean", p, full, p, parts[0], p, parts[1], p)
	cmd = exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", out, ".")
	cmd.Dir, cmd.Stderr, cmd.Stdout = dir, log, log
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s: %w", dir, err)
	}
	return nil
}
