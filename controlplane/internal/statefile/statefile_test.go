package statefile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/ambit-mesh/ambit/controlplane/internal/statefile"
)

func TestWriteReplacesWholeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	for _, content := range []string{"a longer first version", "second"} {
		if err := statefile.Write(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := statefile.ReadPrivate(path, 1<<10)
		if err != nil || string(got) != content {
			t.Fatalf("read back %q, %v; want %q", got, err, content)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Fatalf("temporary files left behind: %v, %v", entries, err)
	}
}

func TestWriteFailureLeavesOldFileAndNoTemporary(t *testing.T) {
	dir := t.TempDir()
	// A directory cannot be replaced by a file.
	path := filepath.Join(dir, "state")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := statefile.Write(path, []byte("x"), 0o600); err == nil {
		t.Fatal("no error")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("temporary files left behind: %v, %v", entries, err)
	}
}

func TestReadPrivateRefuses(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if _, err := statefile.ReadPrivate(write("world", 0o604), 100); !errors.Is(err, statefile.ErrExposed) {
		t.Errorf("readable by all: %v", err)
	}
	if _, err := statefile.ReadPrivate(write("group", 0o640), 100); !errors.Is(err, statefile.ErrExposed) {
		t.Errorf("readable by the group: %v", err)
	}
	if _, err := statefile.ReadPrivate(write("large", 0o600), 3); err == nil {
		t.Error("larger than the limit: no error")
	}
	if _, err := statefile.ReadPrivate(filepath.Join(dir, "none"), 3); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if _, err := statefile.ReadPrivate(dir, 3); err == nil {
		t.Error("directory: no error")
	}
}

func TestPrivateDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := statefile.PrivateDir(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := statefile.PrivateDir(dir); !errors.Is(err, statefile.ErrExposed) {
		t.Fatalf("open directory: %v", err)
	}
}
