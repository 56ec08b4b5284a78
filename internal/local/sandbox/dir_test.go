package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPathChecksNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"default": true, "a": true, "a-1": true, "": false, "-a": false, "a-": false, "A": false, "a/b": false, "..": false,
		strings.Repeat("a", 32): true, strings.Repeat("a", 33): false,
	} {
		if _, err := Path(t.TempDir(), name); (err == nil) != ok {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

func TestDirectoryIsOneProcesss(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ambit", "local", "x")
	d, err := acquire(path, "x")
	if err != nil {
		t.Fatal(err)
	}
	var running *RunningError
	if _, err := acquire(path, "x"); !errors.As(err, &running) {
		t.Errorf("a second one: %v", err)
	}
	if !Running(path) {
		t.Error("it should be seen to run")
	}
	if err := Clean(path, "x"); !errors.As(err, &running) {
		t.Errorf("clean: %v", err)
	}
	if err := d.remove(); err != nil {
		t.Fatal(err)
	}
	if Running(path) {
		t.Error("it should be seen to be gone")
	}
	if _, err := os.Stat(filepath.Dir(filepath.Dir(path))); !os.IsNotExist(err) {
		t.Errorf("the directories above are left: %v", err)
	}
	var none *NotRunningError
	if err := Clean(path, "x"); !errors.As(err, &none) {
		t.Errorf("clean when nothing is there: %v", err)
	}
}

func TestLeftoverIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	leftover := func() {
		if err := errors.Join(os.MkdirAll(filepath.Join(path, "sub"), 0o700), os.WriteFile(filepath.Join(path, lockName), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	leftover()
	if err := Clean(path, "x"); err != nil {
		t.Fatal(err)
	}
	leftover()
	d, err := acquire(path, "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(path, "sub")); !os.IsNotExist(err) {
		t.Error("the next start finds the leftovers")
	}
	if err := d.remove(); err != nil {
		t.Fatal(err)
	}
}

func TestForeignDirectoryIsRefused(t *testing.T) {
	parent := t.TempDir()
	if err := os.Chmod(parent, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := acquire(filepath.Join(parent, "x"), "x"); err == nil {
		t.Error("a directory that everybody may write to was taken")
	}
	if err := os.Symlink(t.TempDir(), filepath.Join(parent, "y")); err != nil {
		t.Fatal(err)
	}
	if err := checkOwner(filepath.Join(parent, "y")); err == nil {
		t.Error("a symbolic link was taken")
	}
}
