package unixsock_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/ambit-mesh/ambit/internal/unixsock"
)

func TestSuccessorTakesOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dir", "a.sock")
	first, err := unixsock.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	second, err := unixsock.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	first.Release()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the first took the second's socket away: %v", err)
	}
	c.Close()
	second.Release()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
}

func TestStaleSocketIsReplacedAndAnythingElseKept(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale.sock")
	l, err := unixsock.Listen("unixpacket", stale)
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // as after a crash: the file stays
	l, err = unixsock.Listen("unixpacket", stale)
	if err != nil {
		t.Fatal(err)
	}
	l.Release()

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("keep me"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := unixsock.Listen("unix", file); err == nil {
		t.Error("want an error")
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "keep me" {
		t.Errorf("touched: %q, %v", b, err)
	}
}
